"""Idempotency-Key on POST /ingest, at both doors: one request, whatever is repeated."""

import uuid
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from deliveries import ingestion, operations
from deliveries.models import IdempotencyKey, WebhookRequest
from subscriptions import cache
from tests.conftest import ingest_body, signed_headers
from tests.expected import problem
from tests.threads import at_once

pytestmark = pytest.mark.django_db

RULE = (
    "An Idempotency-Key has 1 to 255 characters of visible ASCII, with spaces inside but no comma, "
    "and is given once."
)
# The server gives an empty text for a value that is not ASCII, and joins several headers by commas.
NO_KEYS = ["", " ", " a", "a ", "a,b", ",", "ü", "\xc3\xbc", "x" * 256, "tab\there"]


@pytest.fixture
def post(post_ingest):
    """Post a body with an Idempotency-Key, signed."""

    def post_with(body, key="order-4711", **headers):
        return post_ingest(body, signed_headers(body, **{"Idempotency-Key": key}, **headers))

    return post_with


def test_the_same_call_again_gets_the_first_answer_and_stores_nothing(post, make_subscription):
    body = ingest_body(make_subscription().id)
    first, second = post(body), post(body)
    assert (first.status, second.status) == (202, 202)
    assert first.json() == second.json()
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert WebhookRequest.objects.count() == 1


def test_another_body_under_the_same_key_is_refused(post, make_subscription):
    subscription_id = make_subscription().id
    post(ingest_body(subscription_id))
    answer = post(ingest_body(subscription_id, body="2"))
    detail = "This Idempotency-Key was used with another body within the last 24 hours."
    assert answer.status == 422
    assert answer.json() == problem(422, "idempotency_key_reused", detail)
    assert WebhookRequest.objects.count() == 1


def test_keys_of_different_subscriptions_do_not_meet(post, make_subscription):
    ids = {post(ingest_body(make_subscription().id)).json()["request_id"] for _ in range(2)}
    assert len(ids) == 2


def test_a_key_holds_for_24_hours(post, make_subscription):
    body = ingest_body(make_subscription().id)
    first = post(body).json()
    IdempotencyKey.objects.update(created_at=Now() - timedelta(hours=23, minutes=59))
    assert post(body).json() == first
    IdempotencyKey.objects.update(created_at=Now() - timedelta(hours=24))
    again = post(body)
    assert again.json() != first
    assert "Idempotency-Replayed" not in again.headers


def test_the_first_answer_comes_again_though_the_subscription_is_disabled_by_now(post, make_subscription):
    subscription = make_subscription()
    body = ingest_body(subscription.id)
    first = post(body).json()
    subscription.status = "disabled"
    subscription.save()
    assert post(body).json() == first
    assert post(body, key="another").status == 409
    assert not IdempotencyKey.objects.filter(key="another").exists()


def test_a_stale_cache_stores_nothing_for_a_disabled_subscription(post, make_subscription):
    subscription = make_subscription()
    cache.put(subscription.id, type(subscription).objects.get(), generation=cache.generation())
    type(subscription).objects.update(status="disabled")
    assert post(ingest_body(subscription.id)).status == 409
    assert not IdempotencyKey.objects.exists()


def test_an_event_type_that_is_not_taken_keeps_no_key(post, make_subscription):
    body = ingest_body(make_subscription(event_types=["other"]).id)
    assert [post(body).status, post(body).status] == [204, 204]
    assert not IdempotencyKey.objects.exists()


def test_a_wrong_signature_learns_nothing_of_a_key(post, post_ingest, make_subscription):
    body = ingest_body(make_subscription().id)
    post(body)
    answer = post_ingest(body, {"X-Webhook-Signature": "sha256=00", "Idempotency-Key": "order-4711"})
    assert answer.status == 401


@pytest.mark.parametrize("key", NO_KEYS)
def test_a_key_that_is_none_is_refused(post, make_subscription, key):
    answer = post(ingest_body(make_subscription().id), key=key)
    assert (answer.status, answer.json()) == (400, problem(400, "invalid_idempotency_key", RULE))
    assert not WebhookRequest.objects.exists()


@pytest.mark.parametrize("key", ["!", "order 4711", "~" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"'])
def test_any_other_visible_ascii_is_a_key(post, make_subscription, key):
    body = ingest_body(make_subscription().id)
    assert post(body, key=key).status == 202
    assert post(body, key=key).headers["Idempotency-Replayed"] == "true"


def test_keys_that_hold_no_more_are_purged(post, make_subscription):
    post(ingest_body(make_subscription().id))
    IdempotencyKey.objects.update(created_at=Now() - timedelta(hours=25))
    post(ingest_body(make_subscription().id), key="fresh")
    operations.purge(older_than_days=30)
    assert [key.key for key in IdempotencyKey.objects.all()] == ["fresh"]


@pytest.mark.django_db(transaction=True)
def test_fifty_equal_calls_at_once_are_one_request(make_subscription):
    body = ingest_body(make_subscription().id)
    headers = {**signed_headers(body), "Idempotency-Key": str(uuid.uuid4())}
    answers = at_once(50, lambda: ingestion.accept(body, headers))
    assert len({answer.request_id for answer in answers}) == 1
    assert sum(not answer.is_replayed for answer in answers) == 1
    assert WebhookRequest.objects.count() == 1
