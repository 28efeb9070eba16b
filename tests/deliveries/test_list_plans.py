"""Every list of requests is read from an index: the plans, over a table that is full of history.

`make plans` does the same with 1,000,000 requests; `python -m tests.benchmarks lists` shows what they take.
"""

import json
import re

import pytest
from django.db import connection

from deliveries.models import WebhookRequest
from deliveries.request_serializers import RequestFilterSerializer
from deliveries.request_views import narrow
from tests import history
from tests.plans import nodes_of

COUNT = int(history.ROWS or 20_000)


@pytest.fixture(scope="module")
def _history(django_db_setup, django_db_blocker):
    """Fill the tables once for this module, and empty them again."""
    with django_db_blocker.unblock():
        history.fill(COUNT, size=10)
        yield
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE webhook_requests, delivery_attempts, events, subscriptions")
            cursor.execute("ANALYZE webhook_requests, subscriptions")


def plan_of(**filters):
    """Return the plan of a list's first page, from its outermost node on."""
    read = RequestFilterSerializer(data=filters)
    read.is_valid(raise_exception=True)
    queryset = narrow(WebhookRequest.objects.defer("payload").with_standing(), dict(read.validated_data))
    return json.loads(queryset.order_by("-id")[:51].explain(format="json"))[0]["Plan"]


def indexes_of(plan):
    """Return the indexes by which the plan reads webhook_requests; the bitmap of one is for few rows.

    Not those of the subqueries that say what a request waits for.
    """
    nodes = list(nodes_of(plan, with_subplans=False))
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
    names = {node.get("Index Name") for node in nodes} - {None, "subscriptions_pkey"}
    assert names
    return names


SUBSCRIPTION, TENANT = {"subscription": "some"}, {"tenant": "small"}
SINCE, UNTIL = {"received_after": "some"}, {"received_before": "some"}


@pytest.fixture
def filters_of(_history, db):
    """Put a subscription and a time that exist in the place of `some`."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT min(id::text) FROM subscriptions WHERE tenant = 'small'")
        subscription_id = cursor.fetchone()[0]
        cursor.execute("SELECT to_char(now() - interval '10 days', 'YYYY-MM-DD\"T\"HH24:MI:SSOF')")
        known = {"subscription": subscription_id} | dict.fromkeys(("received_after", "received_before"), None)
        moment = re.sub(r"\+00$", "Z", cursor.fetchone()[0])
    known |= {"received_after": moment, "received_before": moment}
    return lambda filters: {name: known.get(name, value) for name, value in filters.items()}


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, "webhook_requests_pkey"),
        (SUBSCRIPTION, "requests_by_subscription"),
        (TENANT, "requests_by_tenant"),
        ({"tenant": ""}, "webhook_requests_pkey"),
        ({"status": "delivered"}, "webhook_requests_pkey"),
        ({"status": "failed"}, "requests_by_outcome"),
        ({"status": "canceled"}, "requests_by_outcome"),
        ({"status": "skipped"}, "requests_by_outcome"),
        ({"error": "timeout"}, "requests_by_error"),
        (SINCE, "webhook_requests_pkey"),
        (UNTIL, "webhook_requests_pkey"),
        (SUBSCRIPTION | {"status": "failed"}, "requests_by_sub_outcome"),
        (SUBSCRIPTION | {"status": "failed"} | SINCE, "requests_by_sub_outcome"),
        (SUBSCRIPTION | SINCE, "requests_by_subscription"),
        (SUBSCRIPTION | UNTIL, "requests_by_subscription"),
        (TENANT | UNTIL, "requests_by_tenant"),
        ({"status": "failed"} | UNTIL, "requests_by_outcome"),
        ({"error": "dns"} | SINCE, "requests_by_error"),
    ],
    ids=lambda value: "+".join(value) or "none" if isinstance(value, dict) else None,
)
def test_it_reads_a_page_from_the_index_for_it(filters_of, filters, index):
    assert indexes_of(plan_of(**filters_of(filters))) == {index}


NAMES = ("subscription", "tenant", "status", "event_type", "error", "received_after", "received_before")
VALUES = {"tenant": "small", "status": "pending", "event_type": "rare.event", "error": "tls"}
PAIRS = [(one, other) for place, one in enumerate(NAMES) for other in NAMES[place + 1 :]]


# No index is for event types alone: which of them is walked depends on the statistics.
@pytest.mark.parametrize("names", [("status",), ("event_type",), *PAIRS, NAMES], ids="+".join)
def test_it_never_reads_the_whole_table(filters_of, names):
    assert indexes_of(plan_of(**filters_of({name: VALUES.get(name, "some") for name in names})))
