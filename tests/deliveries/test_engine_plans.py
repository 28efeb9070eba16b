"""The engine's statements look up requests by their keys, whatever PostgreSQL believes to know of its tables.

A burst comes at once, and its statistics up to a minute later, or never if the table is large.
"""

from collections.abc import Mapping
from typing import Any

import pytest
from django.db import connection

from deliveries import claims, settlements, sql, unsent
from deliveries.models import WebhookRequest
from tests import history
from tests.deliveries.claiming import settlement
from tests.plans import Node, nodes_of

pytestmark = pytest.mark.django_db

COUNT = 500
BACKLOG = 10_000


@pytest.fixture(params=["never analyzed", "analyzed when nothing was pending"])
def _burst(db: None, request: pytest.FixtureRequest) -> None:
    """Have a backlog of which the planner knows nothing."""
    with connection.cursor() as cursor:
        if request.param == "never analyzed":
            cursor.execute("TRUNCATE webhook_requests, delivery_attempts, events, subscriptions")
            history.subscribe(BACKLOG // 4)
        else:
            history.fill(BACKLOG, size=10, subscriptions=BACKLOG // 4)
            cursor.execute(
                "UPDATE webhook_requests SET status = 'canceled', next_attempt_at = NULL, settled_at = now()"
            )
            cursor.execute("ANALYZE webhook_requests, subscriptions")
    history.burst(4)


@pytest.fixture
def plans(_burst: None, monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """Note the plan of each statement that the engine runs."""
    noted: list[Node] = []
    run = sql.run

    def run_and_note(statement: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        [[[explained]]] = run(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
        noted.append(explained["Plan"])
        return run(statement, parameters)

    monkeypatch.setattr(sql, "run", run_and_note)
    return noted


def assert_none_compares_all_with_all(plans: list[Node]) -> None:
    """Fail for a loop over requests in a loop over what is to become of them, or the other way round."""
    assert plans
    loops = [node for plan in plans for node in nodes_of(plan) if node["Node Type"] == "Nested Loop"]
    assert [loop["Join Filter"] for loop in loops if "r.id" in loop.get("Join Filter", "")] == []


def test_a_claim_looks_up_each_request_that_it_takes(plans: list[Node]):
    assert len(claims.claim(COUNT).requests) == COUNT
    assert_none_compares_all_with_all(plans)


def test_settling_looks_up_each_request_that_it_settles(plans: list[Node]):
    requests = claims.claim(COUNT).requests
    plans.clear()
    settlements.settle([settlement(request) for request in requests])
    assert WebhookRequest.objects.filter(status="delivered").count() == COUNT
    assert_none_compares_all_with_all(plans)


def test_giving_back_looks_up_each_request_that_it_gives_back(plans: list[Node]):
    requests = claims.claim(COUNT).requests
    plans.clear()
    unsent.give_back(requests)
    assert not WebhookRequest.objects.exclude(lease_token=None).exists()
    assert_none_compares_all_with_all(plans)
