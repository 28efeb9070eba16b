"""Statements with a deadline, against a PostgreSQL that does not answer in time."""

import time

import pytest
from django.db import OperationalError, connection

from deliveries import sql

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_statement_that_takes_too_long_is_cut_off():
    started_at = time.monotonic()
    with pytest.raises(OperationalError), sql.deadline(0.2):
        sql.run("SELECT pg_sleep(3)", {})
    assert time.monotonic() - started_at < 2
    connection.close()
    # The server notices only when the sleep is over; the test database cannot go before.
    while sql.run(
        "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(3)%%' AND pid <> pg_backend_pid()", {}
    ):
        time.sleep(0.05)


def test_a_statement_in_time_is_left_alone():
    with sql.deadline(0.2):
        assert sql.run("SELECT 1", {}) == [(1,)]
    time.sleep(2 * sql.WATCH_SECONDS + 0.2)
    assert sql.run("SELECT 2", {}) == [(2,)]
