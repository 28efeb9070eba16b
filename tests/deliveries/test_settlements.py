"""What becomes of a request when its call has ended: in time, too late, or after it was settled."""

from datetime import timedelta

import pytest

from deliveries import claims, settlements
from deliveries.models import DeliveryAttempt, WebhookRequest
from deliveries.outcome import ErrorClass, Outcome
from deliveries.retry import LONGEST_RETRY_AFTER_SECONDS
from tests.deliveries.claiming import FAILURE, SUCCESS, claimed_ids, log_of, settlement

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("outcome", "delay", "trigger"),
    [(SUCCESS, None, "initial"), (FAILURE, None, "initial"), (FAILURE, 60, "retry")],
)
def test_it_says_retry_only_of_a_request_that_is_tried_again(
    make_subscription, make_request, outcome, delay, trigger
):
    request = make_request(make_subscription())
    (claimed,) = claims.claim(10).requests
    settlements.settle([settlement(claimed, outcome, delay)])
    request.refresh_from_db()
    assert request.trigger == trigger


def test_it_settles_a_success_as_delivered(make_subscription, make_request):
    request = make_request(make_subscription())
    (claimed,) = claims.claim(10).requests
    settlements.settle([settlement(claimed)])
    request.refresh_from_db()
    assert (request.status, request.attempt_count, request.error) == ("delivered", 1, "")
    assert (request.lease_token, request.next_attempt_at) == (None, None)
    assert request.settled_at is not None
    assert log_of(request) == [(1, "initial", True, 200, "")]


def test_it_settles_a_failure_as_due_after_its_delay(make_subscription, make_request, clock):
    request = make_request(make_subscription())
    (claimed,) = claims.claim(10).requests
    settlements.settle([settlement(claimed, FAILURE, delay=120.0)])
    request.refresh_from_db()
    assert (request.status, request.failure_count, request.error) == ("pending", 1, "http_5xx")
    assert request.next_attempt_at - claimed.claimed_at == timedelta(seconds=120)
    assert claimed_ids() == []
    clock.move(timedelta(seconds=120))
    (again,) = claims.claim(10).requests
    assert (again.attempt_number, again.trigger, again.failure_count) == (2, "retry", 1)


def test_it_settles_together_what_is_due_after_whole_seconds_and_after_parts_of_one(
    make_subscription, make_request, clock
):
    # The first is the most that a Retry-After may ask for.
    delays = [LONGEST_RETRY_AFTER_SECONDS, 1.5, None]
    requests = [make_request(make_subscription()) for _ in delays]
    claimed = sorted(claims.claim(10).requests, key=lambda each: each.id)
    settlements.settle([settlement(each, FAILURE, delay) for each, delay in zip(claimed, delays, strict=True)])
    waits = []
    for request, each in zip(requests, claimed, strict=True):
        request.refresh_from_db()
        due = request.next_attempt_at
        waits.append(None if due is None else (due - each.claimed_at).total_seconds())
    assert waits == delays


def test_it_settles_a_failure_without_delay_as_failed(make_subscription, make_request):
    request = make_request(make_subscription())
    (claimed,) = claims.claim(10).requests
    settlements.settle([settlement(claimed, FAILURE)])
    request.refresh_from_db()
    assert (request.status, request.error, request.next_attempt_at) == ("failed", "http_5xx", None)


def test_what_was_in_flight_at_a_cancel_is_logged_as_it_was_though_it_comes_after_a_replay(
    make_subscription, make_request
):
    request = make_request(make_subscription())
    (late,) = claims.claim(10).requests
    WebhookRequest.objects.filter(id=request.id).cancel()
    WebhookRequest.objects.replay()
    claims.claim(10)
    settlements.settle([settlement(late, FAILURE)])
    assert log_of(request) == [(1, "initial", False, 500, "http_5xx")]
    request.refresh_from_db()
    assert (request.status, request.failure_count) == ("pending", 0)


def test_a_late_failure_changes_nothing_but_leaves_its_attempt(make_subscription, make_request, make_due):
    request = make_request(make_subscription())
    (late,) = claims.claim(10).requests
    make_due(request)
    (current,) = claims.claim(10).requests
    settlements.settle([settlement(late, FAILURE)])
    request.refresh_from_db()
    assert (request.status, request.lease_token, request.failure_count) == ("pending", current.lease_token, 0)
    settlements.settle([settlement(current)])
    request.refresh_from_db()
    assert request.status == "delivered"
    assert log_of(request) == [(1, "initial", False, 500, "http_5xx"), (2, "retry", True, 200, "")]


@pytest.mark.parametrize(
    ("word", "late_word", "log"),
    [
        pytest.param(
            (FAILURE, 120.0),
            (SUCCESS, None),
            [(1, "initial", True, 200, ""), (2, "retry", False, 500, "http_5xx")],
            id="a late success delivers what waits",
        ),
        pytest.param(
            (SUCCESS, None),
            (FAILURE, 120.0),
            [(1, "initial", False, 500, "http_5xx"), (2, "retry", True, 200, "")],
            id="a late failure does not overturn what is settled",
        ),
    ],
)
def test_one_success_delivers_a_request_whichever_word_comes_late(
    make_subscription, make_request, make_due, word, late_word, log
):
    request = make_request(make_subscription())
    (late,) = claims.claim(10).requests
    make_due(request)
    (current,) = claims.claim(10).requests
    settlements.settle([settlement(current, *word)])
    settlements.settle([settlement(late, *late_word)])
    request.refresh_from_db()
    assert request.status == "delivered"
    assert log_of(request) == log


def test_a_settled_attempt_is_not_overwritten_by_settling_it_again(make_subscription, make_request):
    request = make_request(make_subscription())
    (claimed,) = claims.claim(10).requests
    settlements.settle([settlement(claimed)])
    settlements.settle([settlement(claimed, FAILURE)])
    assert log_of(request) == [(1, "initial", True, 200, "")]


def test_settling_passes_over_a_request_that_was_purged_meanwhile(make_subscription, make_request):
    subscription = make_subscription()
    gone, kept = make_request(subscription), make_request(subscription)
    requests = claims.claim(10).requests
    WebhookRequest.objects.filter(id=gone.id).delete()
    settlements.settle([settlement(request) for request in requests])
    kept.refresh_from_db()
    assert kept.status == "delivered"
    assert log_of(gone) == []


def test_it_keeps_what_the_receiver_answered_and_how_long_each_phase_took(make_subscription, make_request):
    make_request(make_subscription())
    (claimed,) = claims.claim(10).requests
    outcome = Outcome(
        error=ErrorClass.HTTP_4XX,
        status_code=404,
        response_ms=40,
        dns_ms=1,
        connect_ms=2,
        tls_ms=None,
        first_byte_ms=30,
        response_headers="HTTP/1.1 404 Not Found\r\nX-Odd: \xff, {1}\"'\\",
        response_body=bytes(range(256)),
    )
    settlements.settle([settlement(claimed, outcome, delay=1.0)])
    attempt = DeliveryAttempt.objects.get()
    kept = (attempt.response_ms, attempt.dns_ms, attempt.connect_ms, attempt.tls_ms, attempt.first_byte_ms)
    assert kept == (40, 1, 2, None, 30)
    assert attempt.response_headers == outcome.response_headers
    assert bytes(attempt.response_body) == outcome.response_body


def test_a_replay_starts_a_new_run_and_keeps_the_old_attempts(make_subscription, make_request):
    request = make_request(make_subscription())
    (claimed,) = claims.claim(10).requests
    settlements.settle([settlement(claimed, FAILURE)])
    assert WebhookRequest.objects.replay() == 1
    assert WebhookRequest.objects.replay() == 0
    (again,) = claims.claim(10).requests
    assert (again.attempt_number, again.trigger, again.failure_count) == (2, "replay", 0)
    settlements.settle([settlement(again, FAILURE, delay=1.0)])
    request.refresh_from_db()
    assert request.trigger == "replay"
    assert [row[:2] for row in log_of(request)] == [(1, "initial"), (2, "replay")]
