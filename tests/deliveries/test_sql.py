"""Statements with a deadline, against a PostgreSQL that does not answer in time."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.conf import settings
from django.db import OperationalError, connection

from deliveries import sql

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"

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


def test_what_a_pooler_drops_is_what_the_documentation_gives_to_the_role():
    startup = re.findall(r"-c (\w+)=(\w+)", settings.DATABASES["default"]["OPTIONS"]["options"])
    given = re.findall(
        r"ALTER ROLE webhooks_runtime SET (\w+) = '?(\w+)'?;", OPERATIONS.read_text(encoding="utf-8")
    )
    assert sorted(given) == sorted(startup)
    with connection.cursor() as cursor:
        for name, value in startup:
            cursor.execute("SELECT current_setting(%s)", [name])
            assert cursor.fetchone() == (value,)
