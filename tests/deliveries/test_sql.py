"""Statements: how much one stores, and their deadline with a PostgreSQL that does not answer in time."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.conf import settings
from django.db import OperationalError, connection

from deliveries import sql
from tests.waiting import wait_until

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"

pytestmark = pytest.mark.django_db(transaction=True)


@dataclass(frozen=True)
class Row:
    payload: bytes


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([], [[]]),
        ([1], [[1]]),
        ([sql.STATEMENT_BYTES, 0], [[sql.STATEMENT_BYTES, 0]]),
        ([1, sql.STATEMENT_BYTES], [[1], [sql.STATEMENT_BYTES]]),
        ([sql.STATEMENT_BYTES + 1, 1, 1], [[sql.STATEMENT_BYTES + 1], [1, 1]]),
        ([1, sql.STATEMENT_BYTES + 1, 1], [[1], [sql.STATEMENT_BYTES + 1], [1]]),
        ([50_000] * 5, [[50_000, 50_000], [50_000, 50_000], [50_000]]),
    ],
)
def test_it_stores_in_one_statement_what_fits_and_at_least_a_row(sizes: list[int], parts: list[list[int]]):
    rows = [Row(bytes(size)) for size in sizes]
    assert [[len(row.payload) for row in part] for part in sql.in_parts(rows)] == parts


def sleeping() -> list[tuple[int]]:
    return sql.run(
        "SELECT pid FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(60)%%' AND pid <> pg_backend_pid()", {}
    )


def overrun() -> None:
    """Run a statement on this thread's connection that takes longer than it may; the server gives it up too."""
    try:
        with pytest.raises(OperationalError), sql.deadline(0.2):
            sql.run("SELECT pg_sleep(60)", {})
        connection.close()
        wait_until(sleeping, lambda pids: pids == [], lambda: "it sleeps on", seconds=30)
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
