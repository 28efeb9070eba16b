"""Rate limit and order: exact, whatever happens to the one in front."""

import time
from datetime import timedelta
from itertools import chain

import pytest
from django.db.models.functions import Now

from deliveries import claims, settlements
from deliveries.models import WebhookRequest
from subscriptions.models import Subscription
from tests.deliveries.claiming import FAILURE, claimed_ids, settlement
from tests.receiver import Answer
from tests.threads import at_once

pytestmark = pytest.mark.django_db


# The least that the database's clock tells apart.
MOMENT = timedelta(microseconds=1)


def let_time_pass(subscription, seconds):
    """Move the marks of the rate limit and of the block into the past."""
    subscription.refresh_from_db()
    by = timedelta(seconds=seconds)
    Subscription.objects.filter(id=subscription.id).update(
        rate_times=[at - by for at in subscription.rate_times],
        blocked_until=subscription.blocked_until and subscription.blocked_until - by,
    )


@pytest.mark.parametrize(
    ("rate_limit", "calls", "window_seconds"), [(3.0, 3, 1.0), (2.5, 2, 0.8), (1.0, 1, 1.0), (0.5, 1, 2.0)]
)
def test_it_claims_no_more_than_the_rate_limit_allows_in_its_window(
    make_subscription, make_request, clock, rate_limit, calls, window_seconds
):
    subscription = make_subscription(rate_limit=rate_limit)
    for _ in range(10):
        make_request(subscription)
    assert len(claimed_ids()) == calls
    assert claimed_ids() == []
    clock.move(timedelta(seconds=window_seconds) - MOMENT)
    assert claimed_ids() == []
    clock.move(MOMENT)
    assert len(claimed_ids()) == calls


def test_calls_come_free_as_each_leaves_the_window(make_subscription, make_request, clock):
    subscription = make_subscription(rate_limit=4.0)
    for _ in range(2):
        make_request(subscription)
    assert len(claimed_ids()) == 2
    clock.move(timedelta(seconds=0.6))
    for _ in range(5):
        make_request(subscription)
    assert len(claimed_ids()) == 2
    clock.move(timedelta(seconds=0.4) - MOMENT)
    assert claimed_ids() == []
    clock.move(MOMENT)
    assert len(claimed_ids()) == 2


def test_a_claim_tells_after_what_time_a_rate_limit_lets_through_what_it_held_back(
    make_subscription, make_request, clock
):
    subscription = make_subscription(rate_limit=1.0)
    for _ in range(2):
        make_request(subscription)
    assert len(claims.claim(10).requests) == 1
    clock.move(timedelta(seconds=0.25))
    held = claims.claim(10)
    assert held.requests == []
    assert held.rate_held_seconds == 0.75


def test_the_dispatcher_keeps_the_rate_and_delivers_everything(make_subscription, make_request, receiver, deliver):
    subscription = make_subscription(receiver.url, rate_limit=10.0)
    for _ in range(25):
        make_request(subscription)
    started_at = time.monotonic()
    assert deliver() == 25
    assert 2.0 <= time.monotonic() - started_at < 20


def test_an_ordered_subscription_is_tried_one_at_a_time_in_order_of_receipt(
    make_subscription, make_request, receiver, deliver
):
    subscription = make_subscription(receiver.url, ordered=True)
    requests = [make_request(subscription, b'{"n": %d}' % number) for number in range(5)]
    first = claims.claim(100).requests
    assert [request.id for request in first] == [requests[0].id]
    assert claimed_ids() == []
    settlements.settle([settlement(first[0])])
    assert deliver() == 4
    assert [arrival.body for arrival in receiver.arrivals] == [b'{"n": %d}' % number for number in range(1, 5)]


def test_a_failing_head_blocks_an_ordered_subscription_until_it_is_delivered(
    make_subscription, make_request, clock
):
    subscription = make_subscription(ordered=True)
    head, following = make_request(subscription), make_request(subscription)
    (claimed,) = claims.claim(10).requests
    settlements.settle([settlement(claimed, FAILURE, delay=120.0)])
    assert claimed_ids() == []
    clock.move(timedelta(seconds=120) - MOMENT)
    assert claimed_ids() == []
    clock.move(MOMENT)
    (again,) = claims.claim(10).requests
    assert (again.id, again.attempt_number) == (head.id, 2)
    settlements.settle([settlement(again)])
    assert claimed_ids() == [following.id]


def test_a_head_that_failed_for_good_lets_the_next_one_through(make_subscription, make_request):
    subscription = make_subscription(ordered=True, retry_schedule=[])
    make_request(subscription)
    following = make_request(subscription)
    (claimed,) = claims.claim(10).requests
    settlements.settle([settlement(claimed, FAILURE)])
    assert claimed_ids() == [following.id]


def test_a_failing_head_that_is_canceled_lets_the_next_one_through(make_subscription, make_request):
    subscription, other = make_subscription(ordered=True), make_subscription(ordered=True)
    head, following, others_head = make_request(subscription), make_request(subscription), make_request(other)
    settlements.settle([settlement(each, FAILURE, delay=120.0) for each in claims.claim(10).requests])
    assert WebhookRequest.objects.filter(id=following.id).cancel() == 1
    following = make_request(subscription)
    assert claimed_ids() == []
    assert WebhookRequest.objects.filter(id=head.id).cancel() == 1
    assert claimed_ids() == [following.id]
    others_head.refresh_from_db()
    assert others_head.hold_reason == "ordered"


def test_a_subscription_that_is_not_ordered_any_more_waits_for_no_head(make_subscription, make_request):
    subscription = make_subscription(ordered=True)
    head, following = make_request(subscription), make_request(subscription)
    settlements.settle([settlement(each, FAILURE, delay=120.0) for each in claims.claim(10).requests])
    assert claimed_ids() == []
    Subscription.objects.filter(id=subscription.id).update(ordered=False)
    assert sorted(claimed_ids()) == [head.id, following.id]


def test_a_failing_head_is_skipped_after_as_many_failures_as_the_setting_says(
    make_subscription, make_request, settings
):
    settings.ORDERED_SKIP_AFTER = 2
    subscription = make_subscription(ordered=True)
    head, following = make_request(subscription), make_request(subscription)
    for _ in range(2):
        let_time_pass(subscription, 1000)
        (claimed,) = claims.claim(10).requests
        assert claimed.id == head.id
        settlements.settle([settlement(claimed, FAILURE, delay=120.0)])
    assert claimed_ids() == [following.id]


def test_a_lost_head_of_an_ordered_subscription_comes_before_those_that_waited_for_it(
    make_subscription, make_request
):
    subscription = make_subscription(ordered=True)
    head = make_request(subscription)
    make_request(subscription)
    assert claimed_ids() == [head.id]
    WebhookRequest.objects.filter(id=head.id).update(next_attempt_at=Now())
    assert claimed_ids() == [head.id]
    assert claimed_ids() == []


@pytest.mark.django_db(transaction=True)
def test_caps_hold_exactly_across_workers_that_claim_at_once(make_subscription, make_request):
    capped = make_subscription(max_in_flight=3)
    limited = make_subscription(rate_limit=5.0)
    ordered = make_subscription(ordered=True)
    for subscription in (capped, limited, ordered):
        for _ in range(30):
            make_request(subscription)

    def work():
        return [request.target.id for _ in range(10) for request in claims.claim(100).requests]

    started_at = time.monotonic()
    taken = list(chain.from_iterable(at_once(4, work)))
    assert taken.count(capped.id) == 3
    assert taken.count(ordered.id) == 1
    assert 5 <= taken.count(limited.id) <= 5 * (1 + int(time.monotonic() - started_at))


def test_a_failing_receiver_is_asked_in_order_until_it_recovers(
    make_subscription, make_request, receiver, deliver
):
    receiver.script = [Answer(status=500), Answer(status=500)]
    subscription = make_subscription(receiver.url, ordered=True, retry_schedule=[1, 1, 1])
    for number in range(3):
        make_request(subscription, b'{"n": %d}' % number)
    for _ in range(3):
        deliver()
        let_time_pass(subscription, 2)
    assert [arrival.body for arrival in receiver.arrivals] == [b'{"n": 0}'] * 3 + [b'{"n": 1}', b'{"n": 2}']


def test_a_late_failure_does_not_unblock_an_ordered_subscription(make_subscription, make_request, make_due):
    subscription = make_subscription(ordered=True)
    head = make_request(subscription)
    (late,) = claims.claim(10).requests
    make_due(head)
    (current,) = claims.claim(10).requests
    settlements.settle([settlement(current, FAILURE, delay=120.0)])
    settlements.settle([settlement(late, FAILURE, delay=1.0)])
    assert claimed_ids() == []
    subscription.refresh_from_db()
    assert subscription.is_blocked_now


def test_a_call_that_cannot_be_sent_blocks_an_ordered_subscription_like_any_failure(
    make_subscription, make_request, deliver
):
    subscription = make_subscription(ordered=True)
    head = make_request(subscription)
    make_request(subscription)
    Subscription.objects.filter(id=subscription.id).update(secret=b"not what encrypt() made")
    deliver()
    head.refresh_from_db()
    assert (head.attempt_count, head.error, head.hold_reason) == (1, "internal", "ordered")
    assert head.due_at - head.received_at > timedelta(seconds=119)
    subscription.refresh_from_db()
    assert subscription.window_failures == 0
