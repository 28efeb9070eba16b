"""The operators of content filters: how a value of an event compares with an operand, all pure."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

# Characters of a value that `quote` returns.
QUOTED_LENGTH = 80

# An integer is converted to be compared with a fraction or written out, in a time that grows with the
# square of its length: 250 µs for 4,200 digits. One of more bits than these, 600 digits, is kept
# converted: a megabyte has at most so many of those.
LONG_BITS = 2_000
KEPT_INTEGERS = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Operator:
    """How a value is compared with an operand, and what the operand has to be."""

    is_met: Callable[[Any, Any], bool]
    takes: Callable[[Any], bool]
    taken: str
    words: str


def equal(left: Any, right: Any) -> bool:
    """Compare as JSON does: numbers by their value, true not with 1, members in any order."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if is_number(left) and is_number(right):
        return bool(_exact(left) == _exact(right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[name], right[name]) for name in right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return type(left) is type(right) and bool(left == right)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _exact(number: Any) -> int | Decimal:
    """Return the number that was written: a float is what its shortest notation says."""
    if isinstance(number, float):
        return Decimal(repr(number))
    is_long = isinstance(number, int) and number.bit_length() > LONG_BITS
    return _converted(number) if is_long else number


@lru_cache(maxsize=KEPT_INTEGERS)
def _converted(number: int) -> Decimal:
    return Decimal(number)


def _compared(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Return `compare` for two texts or two numbers; anything else does not compare."""

    def is_met(value: Any, operand: Any) -> bool:
        if isinstance(value, str) and isinstance(operand, str):
            return compare(value, operand)
        return is_number(value) and is_number(operand) and compare(_exact(value), _exact(operand))

    return is_met


def _is_in(value: Any, operand: Any) -> bool:
    if isinstance(operand, list):
        return any(equal(value, item) for item in operand)
    if isinstance(value, list):
        return any(equal(item, operand) for item in value)
    return isinstance(value, str) and isinstance(operand, str) and operand in value


def _affix(has: Callable[[str, tuple[str, ...]], bool]) -> Callable[[Any, Any], bool]:
    def is_met(value: Any, operand: Any) -> bool:
        return isinstance(value, str) and has(value, tuple(operand) if isinstance(operand, list) else (operand,))

    return is_met


def quote(value: Any) -> str:
    """Return a value in words that are not long."""
    if isinstance(value, dict | list) and value:
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, str):
        value = value[:QUOTED_LENGTH]
    if isinstance(value, int):
        value = _exact(value)
    text = str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= QUOTED_LENGTH else text[: QUOTED_LENGTH - 1] + "…"


def _is_anything(operand: Any) -> bool:
    return True


def _is_comparable(operand: Any) -> bool:
    return isinstance(operand, str) or is_number(operand)


def _is_scalar(operand: Any) -> bool:
    return not isinstance(operand, dict | list)


def _is_choice(operand: Any) -> bool:
    return all(map(_is_scalar, operand)) if isinstance(operand, list) else _is_scalar(operand)


def _is_affix(operand: Any) -> bool:
    texts = operand if isinstance(operand, list) else [operand]
    return bool(texts) and all(isinstance(text, str) for text in texts)


def _ordering(compare: Callable[[Any, Any], bool], words: str) -> Operator:
    return Operator(is_met=_compared(compare), takes=_is_comparable, taken="a number or a text", words=words)


OPERATORS = {
    "$eq": Operator(is_met=equal, takes=_is_anything, taken="any JSON", words="equal"),
    "$neq": Operator(
        is_met=lambda value, operand: not equal(value, operand),
        takes=_is_anything,
        taken="any JSON",
        words="not equal",
    ),
    "$gt": _ordering(lambda value, operand: value > operand, "be greater than"),
    "$gte": _ordering(lambda value, operand: value >= operand, "be at least"),
    "$lt": _ordering(lambda value, operand: value < operand, "be less than"),
    "$lte": _ordering(lambda value, operand: value <= operand, "be at most"),
    "$in": Operator(
        is_met=_is_in,
        takes=_is_choice,
        taken="a list of texts, numbers, true, false and null, or one of those",
        words="be in, or contain,",
    ),
    "$nin": Operator(
        is_met=lambda value, operand: not _is_in(value, operand),
        takes=_is_choice,
        taken="a list of texts, numbers, true, false and null, or one of those",
        words="not be in, nor contain,",
    ),
    "$startsWith": Operator(
        is_met=_affix(str.startswith), takes=_is_affix, taken="a text or a list of texts", words="begin with"
    ),
    "$endsWith": Operator(
        is_met=_affix(str.endswith), takes=_is_affix, taken="a text or a list of texts", words="end with"
    ),
}
