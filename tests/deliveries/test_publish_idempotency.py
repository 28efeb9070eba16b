"""Idempotency-Key on POST /events and /events/batch: one event, whatever is repeated."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from deliveries import idempotency, publishing
from deliveries.models import Event, IdempotencyKey, WebhookRequest
from deliveries.publishing import NewEvent
from tests.expected import problem
from tests.threads import at_once

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("path", ["", "/batch"])
def test_the_same_call_again_gets_the_first_answer_and_stores_nothing(publish, make_subscription, path):
    make_subscription()
    event = {"event_type": "a", "body": 1}
    body = {"events": [event, event]} if path else event
    first = publish(body, path, idempotency_key="order-4711")
    make_subscription()
    second = publish(body, path, idempotency_key="order-4711")
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.content == second.content
    assert "Idempotency-Replayed" not in first
    assert second["Idempotency-Replayed"] == "true"
    assert Event.objects.count() == WebhookRequest.objects.count() == (2 if path else 1)


def test_another_body_under_the_same_key_is_refused(publish):
    publish({"event_type": "a", "body": 1}, idempotency_key="k")
    answer = publish({"event_type": "a", "body": 2}, idempotency_key="k")
    detail = "This Idempotency-Key was used with another body within the last 24 hours."
    assert (answer.status_code, answer.json()) == (422, problem(422, "idempotency_key_reused", detail))
    batch = publish({"events": [{"event_type": "a", "body": 1}]}, "/batch", idempotency_key="k")
    assert batch.status_code == 422
    assert Event.objects.count() == 1


def test_keys_of_different_tenants_do_not_meet_and_those_of_one_do(publish, make_client):
    call = {"event_type": "a", "body": 1}
    clients = [
        make_client(),
        make_client(tenant=""),
        make_client(tenant="acme"),
        make_client(tenant="acme"),
        make_client(tenant="x" * 255),
    ]
    answers = [publish(call, client=client, idempotency_key="k") for client in clients]
    assert ["Idempotency-Replayed" in answer for answer in answers] == [False, False, False, True, False]
    assert answers[2].content == answers[3].content
    assert Event.objects.count() == 4


def test_a_key_holds_for_24_hours(publish):
    call = {"event_type": "a", "body": 1}
    first = publish(call, idempotency_key="k").json()
    IdempotencyKey.objects.update(created_at=Now() - timedelta(hours=23, minutes=59))
    assert publish(call, idempotency_key="k").json() == first
    IdempotencyKey.objects.update(created_at=Now() - timedelta(hours=24))
    again = publish({"event_type": "a", "body": 2}, idempotency_key="k")
    assert again.status_code == 202
    assert again.json() != first
    assert publish({"event_type": "a", "body": 2}, idempotency_key="k").json() == again.json()


@pytest.mark.parametrize("key", ["", " ", " a", "a,b", "ü", "x" * 256])
@pytest.mark.parametrize("path", ["", "/batch"])
def test_a_key_that_is_none_is_refused(publish, path, key):
    event = {"event_type": "a", "body": 1}
    answer = publish({"events": [event]} if path else event, path, idempotency_key=key)
    detail = (
        "An Idempotency-Key has 1 to 255 characters of visible ASCII, with spaces inside but no comma, "
        "and is given once."
    )
    assert (answer.status_code, answer.json()) == (400, problem(400, "invalid_idempotency_key", detail))
    assert not Event.objects.exists()


def test_what_is_refused_keeps_no_key(publish):
    assert publish({"event_type": "?", "body": 1}, idempotency_key="k").status_code == 400
    assert publish({"event_type": "a", "body": 1}, idempotency_key="k").status_code == 202


@pytest.mark.django_db(transaction=True)
def test_fifty_equal_calls_at_once_are_one_event(make_subscription):
    subscription = make_subscription()
    key = idempotency.Key.of_publish({"Idempotency-Key": "k"}, None, b"the body")

    def call():
        return publishing.publish_call([NewEvent(event_type="a", payload=b"1")], key, is_batch=False)

    answers = at_once(50, call)
    assert len({answer.body for answer in answers}) == 1
    assert sum(not answer.is_replayed for answer in answers) == 1
    [row] = WebhookRequest.objects.all()
    assert (row.subscription_id, row.event_id) == (subscription.id, Event.objects.get().id)
