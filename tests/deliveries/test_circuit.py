"""The circuit breaker, and what else a failing endpoint brings on its subscription.

What is promised: a circuit opens on a failing receiver (5-minute window, at least 10 calls,
half of them failed), holds its requests without spending attempts, probes with one call
after 30 s (doubling, at most 30 min), and closes on success.
"""

from datetime import timedelta

import pytest
from django.db.models.functions import Now
from django.utils.dateparse import parse_datetime
from django.utils.formats import date_format

from deliveries import claims, settlements
from deliveries.retry import Decision
from subscriptions.models import Circuit, Subscription
from tests.deliveries.claiming import FAILURE, SUCCESS, claimed_ids, settlement
from tests.receiver import Answer
from tests.staff import operator_client

pytestmark = pytest.mark.django_db


def settle(requests, outcome, delay=120.0):
    settlements.settle(
        [settlement(request, outcome, None if outcome.is_success else delay) for request in requests]
    )


def fresh(subscription):
    return Subscription.objects.get(id=subscription.id)


@pytest.fixture
def call(make_request):
    """Make `count` calls to a subscription that all come to the same."""

    def make(subscription, outcome, count=1):
        for _ in range(count):
            make_request(subscription)
        requests = claims.claim(count).requests
        assert len(requests) == count
        settle(requests, outcome)

    return make


@pytest.fixture
def opened(make_subscription, call):
    subscription = make_subscription(max_in_flight=100)
    call(subscription, FAILURE, 10)
    return subscription


def make_probe_due(subscription):
    Subscription.objects.filter(id=subscription.id).update(circuit_probe_at=Now())


def test_it_stays_closed_below_ten_calls(make_subscription, call):
    subscription = make_subscription()
    call(subscription, FAILURE, 9)
    assert fresh(subscription).circuit == Circuit.CLOSED


def test_it_opens_when_half_of_ten_calls_failed(make_subscription, call):
    subscription = make_subscription()
    call(subscription, FAILURE, 1)
    call(subscription, SUCCESS, 5)
    call(subscription, FAILURE, 3)
    assert fresh(subscription).circuit == Circuit.CLOSED
    call(subscription, FAILURE, 1)
    assert fresh(subscription).circuit == Circuit.OPEN


def test_it_stays_closed_while_more_than_half_succeed(make_subscription, call):
    subscription = make_subscription()
    call(subscription, FAILURE, 1)
    for _ in range(8):
        call(subscription, SUCCESS, 3)
        call(subscription, FAILURE, 1)
    assert fresh(subscription).circuit == Circuit.CLOSED


def test_a_window_ends_after_five_minutes(make_subscription, call):
    subscription = make_subscription()
    call(subscription, FAILURE, 9)
    Subscription.objects.update(window_started_at=Now() - timedelta(minutes=5))
    call(subscription, FAILURE, 1)
    assert (fresh(subscription).window_calls, fresh(subscription).circuit) == (1, Circuit.CLOSED)


def test_a_healthy_endpoint_leaves_no_trace(make_subscription, call):
    subscription = make_subscription()
    before = Subscription.objects.values().get()
    call(subscription, SUCCESS, 20)
    assert Subscription.objects.values().get() == before


def test_an_open_circuit_holds_requests_without_spending_attempts(opened, make_request):
    request = make_request(opened)
    assert claimed_ids() == []
    request.refresh_from_db()
    assert (request.attempt_count, request.hold_reason) == (0, "circuit_open")


def test_it_is_probed_with_one_call_after_thirty_seconds_and_closes_on_success(opened, make_request):
    for _ in range(5):
        make_request(opened)
    probe_in = fresh(opened).circuit_probe_at - fresh(opened).circuit_opened_at
    assert probe_in == timedelta(seconds=30)
    make_probe_due(opened)
    assert fresh(opened).circuit == Circuit.HALF_OPEN
    probe = claims.claim(100).requests
    assert len(probe) == 1
    assert claimed_ids() == []
    settle(probe, SUCCESS)
    closed = fresh(opened)
    assert (closed.circuit, closed.circuit_trips, closed.window_calls) == (Circuit.CLOSED, 0, 0)
    assert len(claimed_ids()) == 4


@pytest.mark.parametrize(("failed_probes", "seconds"), [(1, 60), (2, 120), (3, 240), (6, 1800), (9, 1800)])
def test_the_time_to_the_next_probe_doubles_up_to_half_an_hour(opened, make_request, failed_probes, seconds):
    for _ in range(failed_probes):
        make_request(opened)
        make_probe_due(opened)
        settle(claims.claim(1).requests, FAILURE)
    left = Subscription.objects.annotate(left=models_left()).get().left
    assert abs(left - timedelta(seconds=seconds)) < timedelta(seconds=5)


def models_left():
    from django.db.models import DurationField, ExpressionWrapper, F

    return ExpressionWrapper(F("circuit_probe_at") - Now(), output_field=DurationField())


def test_a_straggler_that_fails_does_not_move_the_probe(make_subscription, make_request):
    subscription = make_subscription()
    for _ in range(11):
        make_request(subscription)
    *requests, straggler = claims.claim(11).requests
    settle(requests, FAILURE)
    before = fresh(subscription).circuit_probe_at
    settle([straggler], FAILURE)
    assert fresh(subscription).circuit_probe_at == before


def test_a_straggler_that_succeeds_does_not_close_it(make_subscription, make_request):
    subscription = make_subscription()
    for _ in range(11):
        make_request(subscription)
    *requests, straggler = claims.claim(11).requests
    settle(requests, FAILURE)
    settle([straggler], SUCCESS)
    assert fresh(subscription).circuit == Circuit.OPEN


def test_people_open_and_close_it(make_subscription, make_request):
    subscription = make_subscription()
    make_request(subscription)
    assert Subscription.objects.open_circuit() == 1
    assert Subscription.objects.open_circuit() == 0
    assert fresh(subscription).circuit == Circuit.OPEN
    assert claimed_ids() == []
    assert Subscription.objects.close_circuit() == 1
    assert len(claimed_ids()) == 1


def test_one_that_failures_opened_is_not_probed_any_more_once_people_open_it(opened, make_request):
    make_request(opened)
    make_probe_due(opened)
    since = fresh(opened).circuit_opened_at
    assert Subscription.objects.open_circuit() == 1
    assert Subscription.objects.open_circuit() == 0
    assert (fresh(opened).circuit, fresh(opened).circuit_opened_at) == (Circuit.OPEN, since)
    assert claimed_ids() == []
    assert Subscription.objects.close_circuit() == 1
    assert len(claimed_ids()) == 1


def test_a_probe_in_flight_does_not_close_what_people_open_meanwhile(opened, make_request):
    make_request(opened)
    make_probe_due(opened)
    probe = claims.claim(10).requests
    Subscription.objects.open_circuit()
    settle(probe, SUCCESS)
    assert fresh(opened).circuit == Circuit.OPEN


def test_an_open_circuit_of_one_subscription_does_not_touch_another(opened, make_subscription, make_request):
    make_request(opened)
    healthy = make_request(make_subscription())
    assert claimed_ids() == [healthy.id]


def test_it_remembers_since_when_there_are_nothing_but_failures(make_subscription, call):
    subscription = make_subscription()
    call(subscription, FAILURE)
    since = fresh(subscription).failing_since
    call(subscription, FAILURE)
    assert fresh(subscription).failing_since == since
    assert fresh(subscription).disable_at == since + timedelta(days=5)
    call(subscription, SUCCESS)
    assert (fresh(subscription).failing_since, fresh(subscription).disable_at) == (None, None)


def test_the_moment_when_it_will_be_disabled_is_shown_from_the_first_failure_on(
    make_subscription, call, client_with_key
):
    """After 5 days of nothing but failures the subscription is disabled, with warnings before."""
    subscription = make_subscription()
    api, page = f"/subscriptions/{subscription.id}", f"/admin/subscriptions/subscription/{subscription.id}/change/"
    call(subscription, FAILURE)
    shown = parse_datetime(client_with_key.get(api).json()["disable_at"])
    assert shown == fresh(subscription).failing_since + timedelta(days=5)
    assert date_format(shown, "DATETIME_FORMAT") in operator_client().get(page).content.decode()


def test_it_is_disabled_after_five_days_of_nothing_but_failures(make_subscription, call):
    subscription = make_subscription()
    call(subscription, FAILURE)
    Subscription.objects.update(failing_since="2026-01-01T00:00:00Z")
    call(subscription, FAILURE)
    disabled = fresh(subscription)
    assert disabled.status == "disabled"
    assert disabled.status_reason == "Nothing but failures since 2026-01-01 00:00 UTC."


def test_it_is_not_disabled_by_a_failure_just_before_the_time(make_subscription, call):
    subscription = make_subscription()
    call(subscription, FAILURE)
    Subscription.objects.update(failing_since=Now() - timedelta(days=4, hours=23))
    call(subscription, FAILURE)
    assert fresh(subscription).status == "active"


def test_a_decision_to_disable_is_carried_out_and_holds_what_is_pending(make_subscription, make_request):
    subscription = make_subscription()
    gone, pending = make_request(subscription), make_request(subscription)
    requests = {request.id: request for request in claims.claim(10).requests}
    decision = Decision(disable_reason="The receiver answered 410 Gone.")
    settlements.settle(
        [
            settlements.Settlement(
                request=requests[gone.id],
                attempted_at=requests[gone.id].claimed_at,
                outcome=FAILURE,
                decision=decision,
            ),
            settlement(requests[pending.id], FAILURE, 1.0),
        ]
    )
    disabled = fresh(subscription)
    assert (disabled.status, disabled.status_reason) == ("disabled", "The receiver answered 410 Gone.")
    gone.refresh_from_db()
    pending.refresh_from_db()
    assert gone.status == "failed"
    assert (pending.status, pending.hold_reason) == ("pending", "disabled")


def test_what_a_disabled_subscription_has_pending_waits_and_goes_out_when_it_is_enabled_again(
    make_subscription, make_request
):
    subscription = make_subscription()
    request = make_request(subscription)
    Subscription.objects.disable("by hand")
    assert claims.claim(10).requests == []
    request.refresh_from_db()
    assert (request.status, request.hold_reason, request.attempt_count) == ("pending", "disabled", 0)
    Subscription.objects.enable()
    assert [one.id for one in claims.claim(10).requests] == [request.id]


def test_a_receiver_that_answers_410_is_asked_no_more(make_subscription, make_request, receiver, deliver):
    receiver.otherwise = Answer(status=410)
    subscription = make_subscription(receiver.url, max_in_flight=1)
    for _ in range(3):
        make_request(subscription)
    assert deliver() == 1
    assert fresh(subscription).status_reason == "The receiver answered 410 Gone."
