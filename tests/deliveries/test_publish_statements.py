"""How many statements it takes to publish, however much is published."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from deliveries.models import Event

pytestmark = pytest.mark.django_db


EXECUTIONS = "SELECT name, generic_plans + custom_plans FROM pg_prepared_statements"


class CountedStatements:
    """Counts the statements that go past Django's cursors to the server: those alone are prepared."""

    def __enter__(self):
        self._before = self._executions()
        return self

    def __exit__(self, *error):
        self.count = sum(count - self._before.get(name, 0) for name, count in self._executions().items())

    @staticmethod
    def _executions():
        """Return how often the server has executed each of them on this connection."""
        with connection.cursor() as cursor:
            cursor.execute(EXECUTIONS)
            return dict(cursor.fetchall())


def test_a_batch_of_a_thousand_takes_as_few_queries_as_one_of_two(publish, make_subscription):
    for tenant in ("", "acme"):
        make_subscription(tenant=tenant, event_types=["a.*"])
    counts = []
    for size in (2, 1000):
        events = [{"event_type": f"a.t{n}", "body": n, "tenant": "acme" if n % 2 else ""} for n in range(size)]
        with CountedStatements() as statements:
            answer = publish({"events": events}, "/batch", idempotency_key=str(size))
        counts.append(statements.count)
        assert len(answer.json()["events"]) == size
        assert all(len(each["requests"]) == 1 for each in answer.json()["events"])
    assert counts == [6, 6]  # look for the key, claim it, events, match, requests, keep the answer


def test_an_event_for_many_takes_three_statements(publish, make_subscription):
    for _ in range(20):
        make_subscription()
    with CountedStatements() as statements, CaptureQueriesContext(connection) as queries:
        assert len(publish({"event_type": "a", "body": 1}).json()["requests"]) == 20
    assert statements.count == 3
    # The API key and the note of its use, and the savepoint of the test's own transaction.
    assert len(queries) <= 5


def test_a_batch_of_large_events_is_stored_by_statements_of_a_bounded_size(publish, make_subscription):
    make_subscription()
    events = [{"event_type": "a", "body": "x" * 60_000} for _ in range(10)]
    with CountedStatements() as statements:
        made = publish({"events": events}, "/batch").json()["events"]
    assert statements.count == 5 + 2  # events two by two, match, requests
    payloads = {str(event.id): bytes(event.payload) for event in Event.objects.all()}
    assert payloads == {event["event_id"]: b'"' + b"x" * 60_000 + b'"' for event in made}
