"""How large JSON becomes in PostgreSQL, which writes each number out: 1e308 with its 308 zeros. Pure."""

import json
from decimal import Decimal
from typing import Any


def size_of(value: Any, **notation: Any) -> int:
    """Return the bytes of a JSON value as `json.dumps` writes it in this notation, but its numbers in full.

    Raises ValueError for what `json.dumps` does not write: an integer of thousands of digits.
    """
    size = len(json.dumps(value, **notation).encode())
    unread = [value]
    while unread:
        each = unread.pop()
        if isinstance(each, float) and "e" in (short := repr(each)):
            size += len(f"{Decimal(short):f}") - len(short)
        else:
            unread.extend(each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
    return size
