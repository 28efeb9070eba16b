"""Rows that somebody else has locked, and lets go of in time."""

import contextlib
from typing import Any

from django.db import connection
from django.db.models import Model

from tests.waiting import wait_until


def lock_of(row: Model) -> Any:
    """Lock a row over a connection of its own, which is returned."""
    other = connection.copy()
    other.inc_thread_sharing()  # another thread lets it go
    other.set_autocommit(False)
    with other.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {row._meta.db_table} WHERE id = %s FOR UPDATE", [row.pk])
    return other


def release_once_waited_for(lock: Any, seconds: float) -> None:
    """Wait until a statement has waited for the lock this long, and let it go; if none does, fail in the end."""
    with contextlib.closing(connection), contextlib.closing(lock):
        wait_until_waited_for(seconds)


def wait_until_waited_for(seconds: float) -> None:
    """Wait until a statement has waited for a lock this long; if none does, fail in the end."""
    waiting = """
        SELECT 1 FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND clock_timestamp() - query_start > %s * interval '1 second'
    """
    with connection.cursor() as cursor:
        wait_until(
            lambda: cursor.execute(waiting, [seconds]).fetchone(), bool, lambda: "nothing waits for the lock"
        )
