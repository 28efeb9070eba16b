"""POST /ingest when another process has changed a subscription that this one has cached."""

import pytest
from django.db.models.functions import Now

from deliveries.models import WebhookRequest
from subscriptions import cache
from subscriptions.models import Subscription
from tests.conftest import ingest_body, signed_headers
from tests.deliveries.ingesting import DISABLED, NOT_FOUND, assert_refused


def test_it_answers_409_when_another_process_has_just_disabled_the_subscription(post_ingest, make_subscription):
    subscription = make_subscription()
    Subscription.objects.cached(subscription.id)
    Subscription.objects.filter(id=subscription.id).update(status="disabled")
    assert Subscription.objects.cached(subscription.id).status == "active"
    assert_refused(post_ingest(ingest_body(subscription.id)), DISABLED)


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}])
def test_it_takes_events_at_once_when_another_process_has_enabled_the_subscription(
    post_ingest, make_subscription, headers
):
    subscription = make_subscription(status="disabled")
    Subscription.objects.cached(subscription.id)
    Subscription.objects.filter(id=subscription.id).update(status="active")
    body = ingest_body(subscription.id)
    assert post_ingest(body, signed_headers(body, **headers)).status == 202
    assert WebhookRequest.objects.count() == 1


def test_it_takes_a_new_secret_at_once_when_another_process_has_set_it(post_ingest, make_subscription):
    subscription = make_subscription()
    Subscription.objects.cached(subscription.id)
    subscription.set_secret("another")
    Subscription.objects.filter(id=subscription.id).update(secret=subscription.secret)
    body = ingest_body(subscription.id)
    assert post_ingest(body, signed_headers(body, "another")).status == 202


def test_it_asks_once_more_before_it_refuses_and_not_before_it_accepts(
    post_ingest, make_subscription, django_assert_num_queries
):
    cache.clear(timer=lambda: 0.0)  # what is cached stays, however long the test takes
    body = ingest_body(make_subscription().id)
    assert post_ingest(body).status == 202
    with django_assert_num_queries(0):  # beside the statement that stores it
        assert post_ingest(body).status == 202
    with django_assert_num_queries(1):
        assert post_ingest(body, signed_headers(body, "wrong")).status == 401


def test_it_stores_nothing_for_a_subscription_that_was_deleted_since_it_was_cached(post_ingest, make_subscription):
    subscription = make_subscription()
    Subscription.objects.cached(subscription.id)
    Subscription.objects.filter(id=subscription.id).update(deleted_at=Now())
    body = ingest_body(subscription.id)
    for headers in ({}, {"Idempotency-Key": "k"}):
        assert_refused(post_ingest(body, signed_headers(body, **headers)), NOT_FOUND)
