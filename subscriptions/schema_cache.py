"""The in-process cache of schemas: what checking a payload needs without a query.

It holds the event types that have a schema and are to be checked, all of them, so that the
others cost no more than a look into a dictionary. The process that changes one forgets
them at once, every other one within a few seconds.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

from subscriptions.schemas import Schema

# How long what was read counts as fresh.
SECONDS = 1.5


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedType:
    """How payloads of one event type are checked; `version` changes whenever the schema may have.

    Without a schema, because it cannot be used, nothing is wrong with any payload.
    """

    schema: Schema | None
    is_enforced: bool
    version: object


_types: Mapping[str, CheckedType] = {}
_read_at: float | None = None
_is_being_read = False
_generation = 0
_lock = Lock()


def fresh() -> Mapping[str, CheckedType] | None:
    """Return the types that are checked, by name; None if the caller has to read them.

    It has to `put` them then, and in any case to `end_reading`: while one thread reads again, the
    others go on with what there is.
    """
    global _is_being_read
    read_at = _read_at
    if read_at is not None and time.monotonic() - read_at <= SECONDS:
        return _types
    with _lock:
        if _read_at is not None and _is_being_read:
            return _types
        _is_being_read = True
        return None


def known() -> Mapping[str, CheckedType]:
    """Return what was read last, however old: a schema of the same version need not be compiled again."""
    return _types


def generation() -> int:
    """Return a number that changes whenever the types are forgotten; ask for it before reading them."""
    return _generation


def put(types: Mapping[str, CheckedType], *, generation: int) -> None:
    """Keep types that were read after `generation`, unless they were forgotten since."""
    global _types, _read_at
    with _lock:
        if generation == _generation:
            _types, _read_at = types, time.monotonic()


def end_reading() -> None:
    """Let somebody else read again, whether it worked or not."""
    global _is_being_read
    with _lock:
        _is_being_read = False


def clear() -> None:
    global _read_at, _generation
    with _lock:
        _generation += 1
        _read_at = None
