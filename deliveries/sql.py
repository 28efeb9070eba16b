"""Run the hot path's statements: prepared, with binary parameters, on Django's connection.

Django's cursors build each statement on the client, which doubles the size of bytes and
leaves the server to plan anew every time. The statements of claims and ingestion are few,
constant and large, so they go to psycopg's server-side binding.
"""

from collections.abc import Mapping
from typing import Any

import psycopg
from django.db import connection
from psycopg.rows import tuple_row


def run(statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Run one statement and return its rows; errors are django.db's.

    Obeys the transaction that Django has open, if any.
    """
    connection.ensure_connection()
    with (
        connection.wrap_database_errors,
        psycopg.Cursor(connection.connection, row_factory=tuple_row) as cursor,
    ):
        cursor.execute(statement, parameters, prepare=True, binary=True)
        return cursor.fetchall() if cursor.description else []
