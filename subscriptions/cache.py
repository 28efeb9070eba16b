"""The in-process cache of subscriptions: what an ingest call needs without a query.

Least recently used go first; an entry lives for at most `SECONDS`. The process that
changes a subscription forgets it at once, every other one within that time.
"""

from threading import Lock
from typing import TYPE_CHECKING
from uuid import UUID

from cachetools import TTLCache

if TYPE_CHECKING:
    from subscriptions.models import Subscription

# Below the documented two seconds by what a query under load may take: the time of an
# entry begins when it is put here, after its row was read.
SECONDS = 1.5
SIZE = 10_000

_entries: "TTLCache[UUID, Subscription]" = TTLCache(maxsize=SIZE, ttl=SECONDS)
_lock = Lock()


def get(subscription_id: UUID) -> "Subscription | None":
    with _lock:
        return _entries.get(subscription_id)


def put(subscription: "Subscription") -> None:
    with _lock:
        _entries[subscription.id] = subscription


def forget(subscription_id: UUID) -> None:
    with _lock:
        _entries.pop(subscription_id, None)


def clear() -> None:
    with _lock:
        _entries.clear()
