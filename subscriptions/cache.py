"""The in-process cache of subscriptions: what an ingest call needs without a query.

Least recently used go first; an entry lives for at most `SECONDS`, and all of them have `BYTES`. The process that
changes a subscription forgets it at once, every other one within that time.
"""

import sys
import time
from collections.abc import Callable
from threading import Lock
from typing import Any
from uuid import UUID

from cachetools import TTLCache

# Below the documented two seconds by what a query under load may take: the time of an
# entry begins when it is put here, after its row was read.
SECONDS = 1.5

# Ten thousand usual subscriptions. The largest that can be made take a hundred times as much each.
BYTES = 50_000_000

_generation = 0
_lock = Lock()


def memory_of(entry: object) -> int:
    """Return about how many bytes of memory an object's fields take, with the texts, lists and objects in them."""
    size, unread = 0, [list(vars(entry).values())]
    while unread:
        items = unread.pop()
        size += sum(map(sys.getsizeof, items))
        for inner in items:
            if isinstance(inner, list):
                unread.append(inner)
            elif isinstance(inner, dict):
                unread.append([*inner, *inner.values()])
    return size


_entries: TTLCache[UUID, Any] = TTLCache(maxsize=BYTES, ttl=SECONDS, getsizeof=memory_of)


def get(subscription_id: UUID) -> Any | None:
    with _lock:
        return _entries.get(subscription_id)


def generation() -> int:
    """Return a number that changes whenever something is forgotten; ask for it before reading a row to `put`."""
    with _lock:
        return _generation


def put(subscription_id: UUID, subscription: Any, *, generation: int) -> None:
    """Keep a subscription that was read after `generation`, unless something was forgotten since."""
    with _lock:
        if generation == _generation:
            _entries[subscription_id] = subscription


def forget(subscription_id: UUID) -> None:
    global _generation
    with _lock:
        _generation += 1
        _entries.pop(subscription_id, None)


def clear(*, timer: Callable[[], float] = time.monotonic) -> None:
    """Begin afresh, with nothing in it; `timer` tells the age of entries."""
    global _entries
    with _lock:
        _entries = TTLCache(maxsize=BYTES, ttl=SECONDS, timer=timer, getsizeof=memory_of)
