"""Every list of events is read from an index: the plans, over many of them. `make plans` has 1,000,000."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests import history
from tests.plans import nodes_of

pytestmark = pytest.mark.django_db

MANY_EVENTS = """
INSERT INTO events (id, tenant, event_type, payload, published_at)
SELECT
    -- as ids of version 7 sort: by the time they were made
    (lpad(to_hex(extract(epoch FROM at)::bigint * 1000), 12, '0') || '7000a000' || lpad(to_hex(n), 12, '0'))::uuid,
    CASE WHEN n %% 2 = 0 THEN 't' || n %% 1000 ELSE '' END, 'type.' || n %% 100, '', at
FROM generate_series(1, %s) AS n, LATERAL (SELECT now() - n * interval '1 second' AS at) AS times
"""


def test_every_list_reads_few_rows_of_a_big_table_from_an_index(make_client):
    with connection.cursor() as cursor:
        # With a file of its own, which goes when the test's transaction is rolled back.
        cursor.execute("TRUNCATE events, webhook_requests, delivery_attempts")
        cursor.execute(MANY_EVENTS, [int(history.ROWS or 200_000)])
        cursor.execute("ANALYZE events")
    operator, tenant = make_client(), make_client(tenant="t2")
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    queries = ["", "event_type=type.7", f"published_after={hour_ago}", f"published_before={hour_ago}"]
    queries += [
        "tenant=t2",
        "tenant=t2&event_type=type.2",
        f"tenant=t2&event_type=none&published_before={hour_ago}",
    ]
    plans = {}
    for client in (operator, tenant):
        for query in queries:
            with CaptureQueriesContext(connection) as captured:
                assert client.get(f"/events?{query}").status_code == 200
            [statement] = [each["sql"] for each in captured if 'FROM "events"' in each["sql"]]
            with connection.cursor() as cursor:
                cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + statement.replace("%", "%%"), [])
                plans[client is tenant, query] = cursor.fetchone()[0][0]["Plan"]
    for query, plan in plans.items():
        scans = [node for node in nodes_of(plan) if "Relation Name" in node]
        assert "Seq Scan" not in {node["Node Type"] for node in scans}, (query, plan)
        # The few of a small tenant may be sorted, from the bitmap of an index.
        rows = sum(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in scans)
        assert rows < 1_000, (query, plan)
