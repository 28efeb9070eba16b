"""The retry schedule: 2, 4, 8, 16 and 32 minutes after the failure before, and never early."""

from datetime import UTC, datetime

import pytest
from django.conf import settings as django_settings
from hypothesis import given
from hypothesis import strategies as st

from deliveries.outcome import ErrorClass, Outcome
from deliveries.retry import Decision, next_attempt

SCHEDULE = [120, 240, 480, 960, 1920]
NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)

DELIVERED = Outcome(error=None, status_code=200, response_ms=5)
FAILED = Outcome(error=ErrorClass.HTTP_5XX, status_code=500, response_ms=5)


def test_it_has_the_documented_schedule_as_its_default():
    assert SCHEDULE == [2 * 60, 4 * 60, 8 * 60, 16 * 60, 32 * 60]
    assert django_settings.RETRY_SCHEDULE == SCHEDULE


@pytest.mark.parametrize(
    ("failure_count", "jitter", "delay"),
    [
        # schedule[failures before] x (1 + 0.1 x jitter)
        (0, 0.0, 120.0),
        (0, 0.5, 126.0),  # 120 + 6
        (0, 1.0, 132.0),  # 120 + 12
        (1, 0.0, 240.0),
        (1, 0.25, 246.0),  # 240 + 6
        (2, 0.5, 504.0),  # 480 + 24
        (3, 1.0, 1056.0),  # 960 + 96
        (4, 0.0, 1920.0),
        (4, 1.0, 2112.0),  # 1920 + 192
    ],
)
def test_it_waits_as_scheduled_plus_at_most_a_tenth(failure_count, jitter, delay):
    decision = next_attempt(FAILED, SCHEDULE, failure_count=failure_count, jitter=jitter, now=NOW)
    assert decision == Decision(delay_seconds=pytest.approx(delay))


@pytest.mark.parametrize(
    ("schedule", "failure_count"), [(SCHEDULE, 5), (SCHEDULE, 6), (SCHEDULE, 100), ([], 0), ([1], 1)]
)
def test_it_gives_up_at_the_end_of_the_schedule(schedule, failure_count):
    decision = next_attempt(FAILED, schedule, failure_count=failure_count, jitter=0.5, now=NOW)
    assert decision == Decision(delay_seconds=None)


@pytest.mark.parametrize("failure_count", [0, 3, 5, 100])
def test_it_is_done_once_it_is_delivered(failure_count):
    decision = next_attempt(DELIVERED, SCHEDULE, failure_count=failure_count, jitter=0.5, now=NOW)
    assert decision == Decision(delay_seconds=None)


@pytest.mark.parametrize("error", ErrorClass)
def test_it_tries_again_after_every_kind_of_failure(error):
    outcome = Outcome(error=error, response_ms=5)
    decision = next_attempt(outcome, SCHEDULE, failure_count=0, jitter=0.0, now=NOW)
    assert decision == Decision(delay_seconds=120.0)


def test_it_makes_six_attempts_within_62_minutes_and_a_tenth():
    decisions = [next_attempt(FAILED, SCHEDULE, failure_count=count, jitter=1.0, now=NOW) for count in range(6)]
    delays = [decision.delay_seconds for decision in decisions]
    assert [delay is not None for delay in delays] == [True] * 5 + [False]
    # 2 + 4 + 8 + 16 + 32 = 62 minutes
    assert sum(delays[:5]) == pytest.approx(62 * 60 * 1.1)


@given(
    schedule=st.lists(st.integers(1, 604_800), min_size=1, max_size=20),
    jitter=st.floats(0, 1),
    data=st.data(),
)
def test_it_is_never_earlier_than_the_schedule_promises(schedule, jitter, data):
    failure_count = data.draw(st.integers(0, len(schedule) - 1))
    delay = next_attempt(FAILED, schedule, failure_count=failure_count, jitter=jitter, now=NOW).delay_seconds
    assert schedule[failure_count] <= delay <= schedule[failure_count] * 1.1 + 1e-6


def answered(status_code, **headers):
    error = None if status_code < 300 else ErrorClass.HTTP_4XX
    lines = [
        f"HTTP/1.1 {status_code} X",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return Outcome(error=error, status_code=status_code, response_ms=1, response_headers="\r\n".join(lines))


def decide(outcome, failure_count=0):
    return next_attempt(outcome, SCHEDULE, failure_count=failure_count, jitter=0.0, now=NOW)


@pytest.mark.parametrize("status_code", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "delay"),
    [
        ("300", 300),
        ("60", 120),  # never earlier than the schedule
        ("0", 120),
        ("36000", 36000),
        ("36001", 36000),  # ten hours at most
        ("9" * 400, 36000),
        ("-5", 120),
        ("1.5", 120),
        ("٣٠٠", 120),  # decimal digits, but not ASCII ones
        ("soon", 120),
        ("", 120),
        ("Tue, 24 Nov 2026 12:10:00 GMT", 600),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 120),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 36000),
        ("Tue, 24 Nov 2026 12:10:00 -0000", 120),  # a time of no known zone
        ("Tue, 99 Nov 2026 12:10:00 GMT", 120),
    ],
)
def test_it_waits_as_long_as_the_receiver_asks_but_never_less_than_scheduled(status_code, retry_after, delay):
    decision = decide(answered(status_code, retry_after=retry_after))
    assert decision == Decision(delay_seconds=delay)


@pytest.mark.parametrize("status_code", [400, 500, 502, 301])
def test_it_heeds_retry_after_only_with_429_and_503(status_code):
    assert decide(answered(status_code, retry_after="5000")).delay_seconds == 120


def test_a_retry_after_does_not_lengthen_the_schedule():
    assert decide(answered(429, retry_after="300"), failure_count=5) == Decision()


def test_410_fails_the_request_and_disables_the_subscription():
    reason = "The receiver answered 410 Gone."
    assert decide(answered(410)) == Decision(failure_reason=reason, disable_reason=reason)


@pytest.mark.parametrize("value", ["disable", "Disable", " disable "])
def test_the_receiver_may_ask_to_be_disabled(value):
    reason = "The receiver answered webhook-delivery: disable."
    assert decide(answered(500, webhook_delivery=value)) == Decision(failure_reason=reason, disable_reason=reason)
    assert decide(answered(200, webhook_delivery=value)) == Decision(disable_reason=reason)


@pytest.mark.parametrize("error", [ErrorClass.TIMEOUT, ErrorClass.PROTOCOL, ErrorClass.RESET])
def test_it_does_not_believe_an_answer_that_did_not_decide(error):
    lines = "HTTP/1.1 410 Gone\r\nwebhook-delivery: disable\r\nRetry-After: 3000"
    outcome = Outcome(error=error, status_code=410, response_ms=1, response_headers=lines)
    assert decide(outcome) == Decision(delay_seconds=120)


def test_the_receiver_may_give_up_on_one_request():
    reason = "The receiver answered webhook-delivery: abort-message."
    assert decide(answered(500, webhook_delivery="abort-message")) == Decision(failure_reason=reason)
    assert decide(answered(200, webhook_delivery="abort-message")) == Decision()


@pytest.mark.parametrize("value", ["", "enable", "disable, abort-message"])
def test_it_ignores_other_words_of_the_receiver(value):
    assert decide(answered(500, webhook_delivery=value)).delay_seconds == 120
