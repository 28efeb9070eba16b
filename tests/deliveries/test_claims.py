"""What a claim takes, and for how long, against PostgreSQL."""

import uuid
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from deliveries import claims, settlements, takes, walks
from deliveries.models import Event, WebhookRequest
from tests.deliveries.claiming import claimed_ids, settlement

pytestmark = pytest.mark.django_db


def test_it_returns_everything_that_sending_needs(make_subscription, make_request):
    subscription = make_subscription("http://127.0.0.1:9/hook", timeout_seconds=7, retry_schedule=[3, 4])
    request = make_request(subscription, b'{"a": 1.0}', event_type="invoice.paid")
    (claimed,) = claims.claim(10).requests
    assert claimed.id == request.id
    assert claimed.payload == b'{"a": 1.0}'
    assert claimed.event_type == "invoice.paid"
    assert (claimed.attempt_number, claimed.trigger, claimed.failure_count) == (1, "initial", 0)
    assert claimed.target.url == "http://127.0.0.1:9/hook"
    assert claimed.target.timeout_seconds == 7
    assert claimed.target.retry_schedule == [3, 4]
    assert claimed.target.signing_keys == subscription.signing_keys


def test_it_sends_the_payload_of_the_event_when_the_request_shares_one(make_subscription):
    event = Event.objects.create(event_type="invoice.paid", payload=b'{"shared": true}')
    subscription = make_subscription()
    WebhookRequest.objects.create(subscription=subscription, event=event, event_type="invoice.paid")
    (claimed,) = claims.claim(10).requests
    assert claimed.payload == b'{"shared": true}'


def test_it_leases_for_the_call_limit_and_a_margin(make_subscription, make_request, settings, clock):
    settings.LEASE_MARGIN_SECONDS = 5
    make_request(make_subscription(timeout_seconds=7))
    (claimed,) = claims.claim(10).requests
    request = WebhookRequest.objects.get()
    assert request.lease_token == claimed.lease_token
    assert request.next_attempt_at - claimed.claimed_at == timedelta(seconds=12)
    assert claimed_ids() == []


def test_it_takes_only_what_is_due(make_subscription, make_request):
    subscription = make_subscription()
    make_request(subscription, next_attempt_at=Now() + timedelta(minutes=2))
    due = make_request(subscription)
    assert claimed_ids() == [due.id]


@pytest.mark.parametrize("status", ["paused", "disabled"])
def test_it_takes_nothing_of_a_subscription_that_is_not_active(make_subscription, make_request, status):
    make_request(make_subscription(status=status))
    assert claimed_ids() == []


def test_it_takes_the_longest_due_of_a_subscription_first(make_subscription, make_request):
    subscription = make_subscription(max_in_flight=2)
    requests = [make_request(subscription, next_attempt_at=Now() - timedelta(seconds=age)) for age in (1, 3, 2)]
    assert set(claimed_ids()) == {requests[1].id, requests[2].id}


def test_it_never_takes_more_than_max_in_flight(make_subscription, make_request):
    subscription = make_subscription(max_in_flight=3)
    for _ in range(5):
        make_request(subscription)
    first = claims.claim(100).requests
    assert len(first) == 3
    assert claimed_ids() == []
    settlements.settle([settlement(first[0])])
    assert len(claimed_ids()) == 1


def test_an_empty_table_yields_nothing():
    nothing = claims.Claim(
        requests=[], lost_attempts=0, stopped_after=None, until=None, has_more=False, rate_held_seconds=None
    )
    assert claims.claim(10) == nothing
    assert claims.claim(10, after=uuid.uuid4()) == nothing


def test_it_takes_nothing_of_a_subscription_that_was_disabled_before_its_lock_was_had(
    make_subscription, make_request
):
    subscription = make_subscription()
    make_request(subscription)
    room = takes.Room(requests=10, suspects=1, size=claims.MAX_BYTES)
    walk = walks.walk(walks.FIRST, walks.LAST, 10, satisfied=[])
    assert list(walk.targets) == [subscription.id]
    type(subscription).objects.filter(id=subscription.id).disable()
    assert takes.take({subscription.id: 10}, room, uuid.uuid4()) == []


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_falls_silent_in_a_claim_holds_its_locks_for_seconds_only():
    """Its connection may be silent for ever: PostgreSQL itself ends what goes on with nothing."""
    with transaction.atomic():
        walks.walk(walks.FIRST, walks.LAST, 10, satisfied=[])
        assert silence_allowed() == "3s"
    assert silence_allowed() == "10s"


def silence_allowed():
    with connection.cursor() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        return cursor.fetchone()[0]


def test_it_takes_no_more_payload_than_it_may_hold(make_subscription, make_request):
    subscription = make_subscription()
    for _ in range(10):
        make_request(subscription, b"x" * 1000)
    event = Event.objects.create(event_type="invoice.paid", payload=b"x" * 1000)
    for _ in range(10):
        WebhookRequest.objects.create(subscription=subscription, event=event, event_type="invoice.paid")
    assert len(claims.claim(100, max_bytes=3500).requests) == 4
    assert len(claims.claim(100, max_bytes=1).requests) == 1
    assert len(claims.claim(100).requests) == 15
