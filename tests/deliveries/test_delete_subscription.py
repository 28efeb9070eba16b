"""DELETE /subscriptions/{id}: gone for everybody at once; its history stays until it is purged."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from deliveries import operations, orphans, tasks
from deliveries.models import DeliveryAttempt, WebhookRequest
from subscriptions.models import Subscription
from tests.conftest import ingest_body
from tests.expected import REQUEST_ID, problem

GONE = problem(404, "not_found", "There is no such subscription.")


@pytest.fixture
def delete(client_with_key):
    """Delete a subscription; returns the answer."""

    def delete(subscription):
        return client_with_key.delete(f"/subscriptions/{subscription.id}", headers={"Request-Id": REQUEST_ID})

    return delete


def test_it_deletes_a_subscription_for_everybody(delete, make_subscription, client_with_key):
    subscription = make_subscription()
    answer = delete(subscription)
    assert (answer.status_code, answer.content) == (204, b"")
    for method, path in (
        ("get", f"/subscriptions/{subscription.id}"),
        ("patch", f"/subscriptions/{subscription.id}"),
        ("delete", f"/subscriptions/{subscription.id}"),
        ("get", f"/status/subscription/{subscription.id}"),
        *(("post", f"/subscriptions/{subscription.id}/{verb}") for verb in ("pause", "enable", "rotate-secret")),
    ):
        answer = getattr(client_with_key, method)(path, headers={"Request-Id": REQUEST_ID})
        assert (method, path, answer.json()) == (method, path, GONE)
    assert client_with_key.get("/subscriptions").json()["results"] == []


def test_ingest_calls_are_refused_at_once(delete, make_subscription, post_ingest):
    subscription = make_subscription()
    body = ingest_body(subscription.id)
    assert post_ingest(body).status == 202
    delete(subscription)
    assert post_ingest(body).json() == GONE


def test_it_cancels_what_is_pending_and_keeps_what_is_settled(delete, make_subscription, make_request, settle):
    subscription = make_subscription()
    pending, delivered = make_request(subscription), settle(make_request(subscription))
    other = make_request(make_subscription())
    delete(subscription)
    for request in (pending, delivered, other):
        request.refresh_from_db()
    assert (pending.status, pending.status_reason) == ("canceled", "The subscription was deleted.")
    assert (pending.next_attempt_at, pending.lease_token) == (None, None)
    assert abs(pending.settled_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert (delivered.status, other.status) == ("delivered", "pending")


@pytest.mark.django_db(transaction=True)
def test_it_is_deleted_though_the_database_fails_right_after(
    delete, make_subscription, make_request, monkeypatch, caplog
):
    request = make_request(make_subscription())
    dying = "SELECT pg_terminate_backend(pg_backend_pid()), %(limit)s::integer, %(reason)s::text"
    with monkeypatch.context() as patched:
        patched.setattr(orphans, "CANCEL", dying)
        answer = delete(request.subscription)
    connection.close()
    assert answer.status_code == 204
    assert "a deleted subscription's requests are still to be canceled" in caplog.messages
    assert tasks.cancel_orphans() == 1
    request.refresh_from_db()
    assert (request.status, request.status_reason) == ("canceled", "The subscription was deleted.")


def test_its_history_can_still_be_read(delete, make_subscription, make_request, client_with_key):
    request = make_request(make_subscription())
    delete(request.subscription)
    found = client_with_key.get(f"/status/request/{request.id}").json()
    assert (found["status"], found["subscription_id"]) == ("canceled", str(request.subscription_id))


def test_it_forgets_every_secret(delete, make_subscription):
    subscription = make_subscription(previous_secret=b"x", previous_secret_until=datetime.now(UTC))
    subscription.set_secret_headers({"X-Key": "v"})
    subscription.set_auth({"type": "bearer", "token": "t"})
    subscription.save()
    delete(subscription)
    row = Subscription.objects.get()
    assert bytes(row.secret) == b""
    assert (row.secret_hint, row.previous_secret, row.previous_secret_until) == ("", None, None)
    assert (row.secret_headers, row.auth) == (None, None)
    assert (row.status, row.status_reason) == ("disabled", "deleted")
    assert row.deleted_at is not None


def test_a_call_in_flight_changes_nothing_but_the_log(delete, make_subscription, make_request, receiver, deliver):
    request = make_request(make_subscription(receiver.url))
    delete(request.subscription)
    assert deliver() == 0
    assert receiver.arrivals == []


def test_the_clock_cancels_what_came_in_beside_the_deletion(delete, make_subscription, make_request):
    subscription = make_subscription()
    delete(subscription)
    late = [make_request(subscription) for _ in range(3)]
    kept = make_request(make_subscription())
    assert tasks.cancel_orphans() == 3
    assert tasks.cancel_orphans() == 0
    assert set(WebhookRequest.objects.filter(status="canceled")) == set(late)
    kept.refresh_from_db()
    assert kept.is_pending


def test_a_long_queue_is_canceled_in_batches(make_subscription):
    subscription = make_subscription()
    WebhookRequest.objects.bulk_create(
        WebhookRequest(subscription=subscription, event_type="a", payload=b"1") for _ in range(2_500)
    )
    subscription.remove()
    assert orphans.cancel(limit=1_500) == 2_000
    assert orphans.cancel(limit=1_500) == 500


def test_it_is_purged_with_the_last_of_its_history(delete, make_subscription, make_request, make_attempt):
    subscription, kept = make_subscription(), make_subscription()
    request = make_request(subscription)
    make_attempt(request)
    delete(subscription)
    assert operations.purge(older_than_days=1) == 0
    assert Subscription.objects.count() == 2
    assert operations.purge(older_than_days=0) == 1
    assert list(Subscription.objects.all()) == [kept]
    assert not DeliveryAttempt.objects.exists()


def test_it_answers_404_for_what_is_not_there_or_another_tenants(make_client, make_subscription):
    client = make_client(tenant="acme")
    other = make_subscription(tenant="globex")
    for subscription_id in (uuid.uuid4(), other.id):
        answer = client.delete(f"/subscriptions/{subscription_id}", headers={"Request-Id": REQUEST_ID})
        assert (answer.status_code, answer.json()) == (404, GONE)
    assert Subscription.objects.existing().get() == other


@pytest.mark.parametrize("scope", ["publish", "read"])
def test_it_wants_a_key_that_may_manage(make_client, make_subscription, scope):
    assert make_client(scope).delete(f"/subscriptions/{make_subscription().id}").status_code == 403
