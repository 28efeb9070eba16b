"""Statements with a deadline, against a PostgreSQL that does not answer in time."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError, connection

from deliveries import sql

pytestmark = pytest.mark.django_db(transaction=True)


def overrun() -> None:
    """Run a statement on this thread's connection that takes longer than it may."""
    try:
        with pytest.raises(OperationalError), sql.deadline(0.2):
            sql.run("SELECT pg_sleep(60)", {})
        connection.close()
        # The server would notice only when the sleep is over; the test database cannot go before.
        assert sql.run(
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity"
            " WHERE query LIKE '%%pg_sleep(60)%%' AND pid <> pg_backend_pid()",
            {},
        ) == [(True,)]
    finally:
        connection.close()


def test_a_statement_that_takes_too_long_is_cut_off():
    overrun()


def test_a_statement_in_time_is_left_alone():
    with sql.deadline(0.2):
        assert sql.run("SELECT 1", {}) == [(1,)]
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(overrun).result()  # its time began later, and is over
    assert sql.run("SELECT 2", {}) == [(2,)]
