"""The database's clock, which decides what is due, in the hands of a test."""

from datetime import timedelta

from django.db import connection

# What comes first in the search path takes the place of PostgreSQL's own; columns' defaults have that one still.
# An hour ahead, so that all that a test makes due now is due.
STAND_STILL = """
CREATE SCHEMA standing;
CREATE TABLE standing.clock AS SELECT statement_timestamp() + interval '1 hour' AS at;
CREATE FUNCTION standing.statement_timestamp() RETURNS timestamptz
LANGUAGE sql STABLE RETURN (SELECT at FROM standing.clock);
SET LOCAL search_path = standing, pg_catalog, public;
"""


class DatabaseClock:
    """Stands still until a test moves it, and to the end of the test's transaction."""

    def __init__(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(STAND_STILL)

    def move(self, by: timedelta) -> None:
        """Let this time pass."""
        with connection.cursor() as cursor:
            cursor.execute("UPDATE standing.clock SET at = at + %s", [by])
