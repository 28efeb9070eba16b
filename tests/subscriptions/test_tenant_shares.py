"""How many calls of one tenant are answered at once, so that others are answered meanwhile."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client

from deliveries import readiness
from subscriptions import tenant_shares
from subscriptions.models import Subscription
from tests.conftest import ingest_body, signed_headers
from tests.expected import REQUEST_ID, problem
from tests.waiting import wait_until

# Who else has come as far as to lock a row.
LOCKING = """
SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
WHERE datname = current_database() AND relation = 'subscriptions'::regclass
    AND mode = 'RowShareLock' AND pid <> pg_backend_pid()
"""

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def four_threads(settings, monkeypatch):
    settings.WEB_THREADS = 4
    # Those that wait do so until the test is done with them.
    monkeypatch.setattr(readiness, "ANSWER_SECONDS", 60)


@pytest.fixture
def subscription(make_subscription) -> Subscription:
    return make_subscription(tenant="acme")


@contextmanager
def under_way(client, subscription: Subscription, count: int) -> Iterator[list[Future[Any]]]:
    """Have so many calls of a client wait for the subscription's row, which is held within the block."""

    def change() -> Any:
        try:
            return client.patch(f"/subscriptions/{subscription.id}", {"description": "changed"}, format="json")
        finally:
            connection.close()

    def locking() -> int:
        with connection.cursor() as cursor:
            cursor.execute(LOCKING)
            return int(cursor.fetchone()[0])

    with ThreadPoolExecutor(count) as threads, transaction.atomic():
        Subscription.objects.select_for_update().get(id=subscription.id)
        calls = [threads.submit(change) for _ in range(count)]
        wait_until(locking, lambda found: found == count, lambda: "not all of them wait for the row")
        yield calls


def test_it_refuses_what_a_tenant_calls_while_it_holds_half_of_the_threads(make_client, subscription):
    first, second = make_client(tenant="acme"), make_client(tenant="acme")
    with under_way(first, subscription, 2) as calls:
        answer = second.get("/subscriptions", headers={"Request-Id": REQUEST_ID})
    detail = "Too many calls of this tenant are being answered at this moment. Try again."
    assert (answer.status_code, answer.json()) == (429, problem(429, "too_many_calls", detail))
    assert answer["Retry-After"] == "1"
    assert [call.result().status_code for call in calls] == [200, 200]
    assert second.get("/subscriptions").status_code == 200
    assert not tenant_shares._calls


def test_it_refuses_nobody_else_meanwhile(make_client, subscription):
    other, operator = make_client(tenant="globex"), make_client()
    body = ingest_body(subscription.id)
    with under_way(make_client(tenant="acme"), subscription, 2):
        assert other.get("/subscriptions").status_code == 200
        assert operator.get("/subscriptions?tenant=acme").status_code == 200
        assert Client().generic("POST", "/ingest", body, headers=signed_headers(body)).status_code == 202


def test_it_leaves_the_calls_of_operators_alone(make_client, subscription):
    operator = make_client()
    with under_way(operator, subscription, 3):
        assert operator.get("/subscriptions").status_code == 200


def test_what_is_refused_or_fails_holds_nothing_afterwards(make_client, settings):
    settings.WEB_THREADS = 1
    client = make_client("read", tenant="acme")
    for path, status in (("/subscriptions", 403), ("/events", 403), ("/nowhere", 404)):
        assert client.post(path).status_code == status
    assert client.get("/requests?nonsense=1").status_code == 400
    assert client.get("/requests").status_code == 200
