"""How large JSON becomes in PostgreSQL."""

import json

import pytest
from django.db import connection

from subscriptions import jsonb


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ({"a": 1}, 8),
        (1e308, 309),
        (-1e308, 310),
        (5e-324, 326),
        (1.5e300, 301),
        (10**300, 301),
        ([1e16, [0.1, {"b": 1e-7}]], 44),
        ("1e308", 7),
    ],
)
def test_it_counts_what_postgresql_writes(db, value, size):
    with connection.cursor() as cursor:
        cursor.execute("SELECT octet_length(%s::jsonb::text)", [json.dumps(value)])
        assert (jsonb.size_of(value), cursor.fetchone()[0]) == (size, size)
