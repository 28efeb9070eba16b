"""Lists of operations, subscriptions and attempts are read from an index: the plans of what the endpoints ask.

Those of requests are in test_list_plans.py, those of events in test_event_plans.py.
`make plans` has 1,000,000 rows.
"""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from subscriptions.lists import MAX_LIMIT
from subscriptions.models import Subscription
from tests import history
from tests.plans import indexes_of, nodes_of

COUNT = int(history.ROWS or 20_000)
SUBSCRIPTIONS = COUNT // 4

# Every second attempt is of the one subscription of the tenant "small".
ATTEMPTS = """
INSERT INTO delivery_attempts (
    id, request_id, subscription_id, attempt_number, trigger, attempted_at, success, error, response_headers,
    response_body
)
SELECT
    r.id, r.id, CASE WHEN row_number() OVER (ORDER BY r.id) % 2 = 0 THEN s.id ELSE r.subscription_id END,
    1, 'initial', r.received_at, true, '', '', ''
FROM webhook_requests AS r
JOIN subscriptions AS s ON s.tenant = 'small'
"""

# 20 operations run, however many there are.
OPERATIONS = """
INSERT INTO operations (
    id, kind, tenant, selection, status, status_reason, total, done, requested_by, started_at, finished_at
)
SELECT
    id, CASE WHEN n % 2 = 0 THEN 'recover' ELSE 'replay' END, 'tenant-' || n % 20, '{}',
    CASE WHEN n % 100 = 1 THEN 'failed' WHEN n % 1000 = 3 AND n < 20000 THEN 'running' ELSE 'done' END,
    '', 1, 1, '', received_at, received_at
FROM (SELECT id, received_at, row_number() OVER (ORDER BY id) AS n FROM webhook_requests) AS numbered
"""


@pytest.fixture(scope="module")
def _history(django_db_setup, django_db_blocker):
    """Fill the tables once for this module, and empty them again."""
    tables = "webhook_requests, delivery_attempts, events, subscriptions, operations"
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        history.fill(COUNT, size=10, subscriptions=SUBSCRIPTIONS)
        cursor.execute(ATTEMPTS)
        cursor.execute(OPERATIONS)
        cursor.execute(f"ANALYZE {tables}")
        yield
        cursor.execute(f"TRUNCATE {tables}, operation_parts")
        cursor.execute(f"ANALYZE {tables}")


@pytest.fixture
def nodes_read(_history, make_client):
    """Return the nodes of the plan by which a call reads its page, from the outermost on.

    Unless `is_free` is False the planner may read whole tables, which the service's connections keep it from.
    """

    def nodes_read(url, table, tenant=None, *, is_free=True):
        client = make_client(tenant=tenant)
        with CaptureQueriesContext(connection) as captured:
            assert client.get(url).status_code == 200
        of_pages = [query["sql"] for query in captured if f'FROM "{table}"' in query["sql"]]
        [statement] = [sql for sql in of_pages if "ORDER BY" in sql]
        with connection.cursor() as cursor:
            if is_free:
                cursor.execute("SET LOCAL enable_seqscan = on")
            cursor.execute("EXPLAIN (FORMAT JSON) " + statement.replace("%", "%%"), [])
            return list(nodes_of(cursor.fetchone()[0][0]["Plan"]))

    return nodes_read


@pytest.mark.usefixtures("_history", "db")
def test_it_reads_the_figures_for_monitoring_from_indexes(client, settings):
    settings.METRICS_TOKEN = "of-the-tests"
    with CaptureQueriesContext(connection) as captured:
        answer = client.get("/metrics", headers={"Authorization": "Bearer of-the-tests"})
    assert answer.status_code == 200
    indexes = set()
    with connection.cursor() as cursor:
        for query in list(captured):
            cursor.execute("EXPLAIN (FORMAT JSON) " + query["sql"])
            nodes = list(nodes_of(cursor.fetchone()[0][0]["Plan"]))
            indexes |= indexes_of(nodes)
            assert "webhook_requests" not in query["sql"] or "Index Scan" not in {n["Node Type"] for n in nodes}
    # Of two indexes of what was not delivered, the one that is cheaper at this size.
    assert len(indexes & {"requests_by_outcome", "requests_by_sub_outcome"}) == 1
    assert indexes - {"requests_by_outcome", "requests_by_sub_outcome"} == {
        "requests_leased",
        "requests_pending",
        "subscriptions_pkey",
        "operations_active",
        "heartbeats_pkey",
    }


FILTERS = ["", "status=active", "status=paused", "event_type=invoice.paid", "search=ledger"]


@pytest.mark.parametrize("query", FILTERS)
def test_it_reads_a_page_of_all_subscriptions_from_the_primary_key(nodes_read, query):
    # No index finds the few that are paused or have a text in them: they are met on the way.
    is_free = query not in ("status=paused", "search=ledger")
    nodes = nodes_read(f"/subscriptions?{query}", "subscriptions", is_free=is_free)
    assert indexes_of(nodes) == {"subscriptions_pkey"}


@pytest.mark.parametrize("is_bound", [True, False])
@pytest.mark.parametrize("tenant", ["small", "tenant-3"])
@pytest.mark.parametrize("query", FILTERS)
def test_it_reads_a_page_of_a_tenants_subscriptions_from_the_index_of_tenants(nodes_read, query, tenant, is_bound):
    url = f"/subscriptions?{query}" if is_bound else f"/subscriptions?tenant={tenant}&{query}"
    nodes = nodes_read(url, "subscriptions", tenant if is_bound else None)
    assert indexes_of(nodes) == {"subscriptions_by_tenant"}


@pytest.mark.parametrize("tenant", [None, "tenant-3", "nobody"])
@pytest.mark.parametrize(
    "query", ["", "kind=replay", "status=done", "status=failed", "kind=recover&status=failed"]
)
def test_it_reads_a_page_of_operations_from_an_index(nodes_read, query, tenant):
    # No index finds the few of all that failed: they are met on the way.
    is_free = tenant is not None or "status=failed" not in query
    indexes = indexes_of(nodes_read(f"/operations?{query}", "operations", tenant, is_free=is_free))
    assert len(indexes) == 1
    assert indexes <= {"operations_pkey", "operations_by_tenant"}


@pytest.mark.parametrize("status", ["pending", "running"])
def test_it_reads_a_page_of_active_operations_from_the_index_of_these(nodes_read, status):
    assert indexes_of(nodes_read(f"/operations?status={status}", "operations")) == {"operations_active"}


@pytest.mark.parametrize("limit", [1, 50, MAX_LIMIT])
@pytest.mark.parametrize("has_many", [True, False])
def test_it_reads_the_latest_attempts_of_a_subscription_from_their_index(nodes_read, has_many, limit):
    owners = (
        Subscription.objects.filter(tenant="small") if has_many else Subscription.objects.exclude(tenant="small")
    )
    nodes = nodes_read(f"/status/subscription/{owners[0].id}?limit={limit}", "delivery_attempts")
    assert indexes_of(nodes) == {"attempts_by_subscription"}
    assert not has_many or {node["Node Type"] for node in nodes} == {"Limit", "Index Scan"}
