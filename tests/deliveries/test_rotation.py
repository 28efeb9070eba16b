"""While a secret is being rotated, the one before still counts, until its time is over by the database's clock."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from django.db.models.functions import Now
from freezegun import freeze_time
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from subscriptions import secrets
from subscriptions.models import Subscription
from tests.conftest import ingest_body, signature_of, signed_headers

OLD, NEW = "the secret before", "the secret from now on"


@pytest.fixture
def make_rotated(make_subscription):
    """Make a subscription whose secret was OLD and is NEW, with the overlap that is left."""

    def make(left: timedelta, target_url: str = "http://127.0.0.1:9/") -> Subscription:
        subscription = make_subscription(target_url, secret=NEW)
        Subscription.objects.filter(id=subscription.id).update(
            previous_secret=secrets.encrypt(OLD, row_id=subscription.id), previous_secret_until=Now() + left
        )
        subscription.refresh_from_db()
        return subscription

    return make


def verifies(secret, arrival):
    headers = {name.lower(): value for name, value in arrival.headers.items()}
    try:
        Webhook(base64.b64encode(secret.encode()).decode()).verify(arrival.body, headers)
    except WebhookVerificationError:
        return False
    return True


def test_a_delivery_is_signed_with_both_keys_newest_first(make_rotated, make_request, receiver, deliver):
    make_request(make_rotated(timedelta(minutes=1), receiver.url), b'{"n": 1}')
    deliver()
    (arrival,) = receiver.arrivals
    assert verifies(NEW, arrival)
    assert verifies(OLD, arrival)
    newest, oldest = arrival.headers["webhook-signature"].split(" ")
    arrival.headers["webhook-signature"] = newest
    assert (verifies(NEW, arrival), verifies(OLD, arrival)) == (True, False)
    arrival.headers["webhook-signature"] = oldest
    assert (verifies(NEW, arrival), verifies(OLD, arrival)) == (False, True)
    assert arrival.headers["X-Webhook-Signature"] == signature_of(b'{"n": 1}', NEW)


def test_a_delivery_is_signed_with_the_new_key_alone_when_the_overlap_is_over(
    make_rotated, make_request, receiver, deliver
):
    make_request(make_rotated(-timedelta(seconds=1), receiver.url), b'{"n": 1}')
    deliver()
    (arrival,) = receiver.arrivals
    assert (verifies(NEW, arrival), verifies(OLD, arrival)) == (True, False)
    assert " " not in arrival.headers["webhook-signature"]


def test_an_ingest_call_may_be_signed_with_either_key(post_ingest, make_rotated):
    body = ingest_body(make_rotated(timedelta(minutes=1)).id)
    assert [post_ingest(body, signed_headers(body, secret)).status for secret in (NEW, OLD)] == [202, 202]
    assert post_ingest(body, signed_headers(body, "neither")).status == 401


def test_an_ingest_call_needs_the_new_key_when_the_overlap_is_over(post_ingest, make_rotated):
    body = ingest_body(make_rotated(-timedelta(seconds=1)).id)
    assert [post_ingest(body, signed_headers(body, secret)).status for secret in (NEW, OLD)] == [202, 401]


@pytest.mark.parametrize("wrong_by", [timedelta(hours=1), -timedelta(hours=1)])
def test_the_clock_of_this_host_does_not_move_the_end_of_the_overlap(
    wrong_by, post_ingest, make_rotated, receiver, deliver
):
    bodies = [ingest_body(make_rotated(left, receiver.url).id) for left in (timedelta(minutes=1), -timedelta(1))]
    with freeze_time(datetime.now(UTC) + wrong_by, tick=True):
        assert [post_ingest(body, signed_headers(body, OLD)).status for body in bodies] == [202, 401]
        deliver()
    assert len(receiver.arrivals[0].headers["webhook-signature"].split(" ")) == 2
