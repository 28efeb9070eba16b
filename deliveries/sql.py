"""Run the hot path's statements: prepared, with binary parameters, on Django's connection.

Django's cursors build each statement on the client, which doubles the size of bytes and
leaves the server to plan anew every time. The statements of claims and ingestion are few,
constant and large, so they go to psycopg's server-side binding.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import psycopg
from django.db import InterfaceError, InternalError, OperationalError, connection
from psycopg.rows import tuple_row

WATCH_SECONDS = 0.1

# A database that takes longer than this to store a call, in seconds, counts as away.
ANSWER_SECONDS = 1.0

# Payloads that one statement stores, in bytes. PostgreSQL's library keeps as much memory for a connection
# as the largest statement took, and each thread of a process has a connection.
STATEMENT_BYTES = 128 * 1024

Result = TypeVar("Result")


class WithPayload(Protocol):
    """What is stored with a payload."""

    @property
    def payload(self) -> bytes: ...


Row = TypeVar("Row", bound=WithPayload)

# What a database raises that is away, restarting, read-only after a failover, or that has
# cut off a transaction: nothing is wrong with the statement, it may be tried again.
AWAY = (OperationalError, InterfaceError, InternalError)


def run(statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Run one statement and return its rows; errors are django.db's.

    Obeys the transaction that Django has open, if any.
    """
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection, row_factory=tuple_row) as cursor:
        cursor.execute(statement, parameters, prepare=True, binary=True)
        return cursor.fetchall() if cursor.description else []


def in_parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Yield `rows` in parts of up to STATEMENT_BYTES of payload, or of one row that is larger."""
    begin = size = 0
    for number, row in enumerate(rows):
        size += len(row.payload)
        if size > STATEMENT_BYTES and number > begin:
            yield rows[begin:number]
            begin, size = number, len(row.payload)
    yield rows[begin:]


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Give what is done on this thread's connection so many seconds, then cut the connection.

    A server that hangs keeps its side of the connection open, and no time limit of its own
    can end the wait; cut off, the wait ends with an OperationalError.
    """
    key = _watchdog.watch(_descriptor(), seconds)
    try:
        yield
    finally:
        _watchdog.release(key)


def has_deadline() -> bool:
    """Return whether what is done on this thread's connection has its time already."""
    return _watchdog.watches(_descriptor())


def _descriptor() -> int:
    connection.ensure_connection()
    with connection.wrap_database_errors:
        descriptor: int = connection.connection.pgconn.socket  # raises if it is known to be dead
    return descriptor


def again_if_disconnected(action: Callable[[], Result], *, seconds: float = ANSWER_SECONDS) -> Result:
    """Run `action`, and once more on a new connection if the first turns out to be gone.

    A restarted PostgreSQL leaves dead connections behind, which only show when used. One
    that does not answer at all within `seconds` is not asked twice. Within a transaction it
    is run as it is: a new connection would not have what came before.
    """
    if connection.in_atomic_block:
        return action()
    if seconds > ANSWER_SECONDS:
        # What may take long is not begun with a server that says nothing.
        connection.close_if_health_check_failed()
    # Else Django's own look whether a kept connection still answers would be one more wait.
    connection.health_check_done = True  # type: ignore[attr-defined]
    connection.ensure_connection()
    started_at = time.monotonic()
    try:
        with deadline(seconds):
            return action()
    except AWAY:
        connection.close()
        if time.monotonic() - started_at >= seconds:
            raise
    try:
        with deadline(seconds):
            return action()
    except AWAY:
        connection.close()  # the next call begins with a new one
        raise


class _Watchdog:
    """One thread that cuts the connections whose time is over."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[object, tuple[float, int]] = {}
        self._thread: threading.Thread | None = None

    def watch(self, descriptor: int, seconds: float) -> object:
        key = object()
        with self._lock:
            self._watched[key] = (time.monotonic() + seconds, descriptor)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
        return key

    def watches(self, descriptor: int) -> bool:
        with self._lock:
            return any(descriptor == watched for _, watched in self._watched.values())

    def release(self, key: object) -> None:
        with self._lock:
            self._watched.pop(key, None)

    def _run(self) -> None:
        while True:
            time.sleep(WATCH_SECONDS)
            with self._lock:
                for key, (until, descriptor) in list(self._watched.items()):
                    if time.monotonic() > until:
                        del self._watched[key]
                        _cut(descriptor)


def _cut(descriptor: int) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


_watchdog = _Watchdog()
