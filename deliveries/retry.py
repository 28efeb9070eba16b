"""When to try again, if at all: a pure decision over one outcome."""

from collections.abc import Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime

import msgspec

from deliveries.outcome import Outcome

# Jitter only adds, so that a retry is never earlier than the schedule promises.
MAX_JITTER = 0.1

# The longest that a receiver's Retry-After is obeyed.
LONGEST_RETRY_AFTER_SECONDS = 10 * 3600
RETRY_AFTER_STATUSES = frozenset({429, 503})
GONE = 410

# What a receiver may say in the response header `webhook-delivery`
# (https://github.com/standard-webhooks/standard-webhooks/pull/291).
CONTROL_HEADER = "webhook-delivery"
DISABLE, ABORT = "disable", "abort-message"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a request that an attempt did not deliver, and of its subscription.

    Due again after `delay_seconds`, or failed if that is None. `failure_reason` says why
    the receiver is not asked again, if that is its wish; `disable_reason` why the
    subscription is to be disabled, if it is.
    """

    delay_seconds: float | None = None
    failure_reason: str | None = None
    disable_reason: str | None = None


def next_attempt(
    outcome: Outcome, schedule: Sequence[int], *, failure_count: int, jitter: float, now: datetime
) -> Decision:
    """Decide what follows `outcome`.

    `schedule` holds the seconds to wait after each failure, `failure_count` the failures
    before this one in the same run, `jitter` a random number from 0 to 1; `now` is what
    the date of a Retry-After is measured against.
    """
    disable_reason = _disable_reason(outcome)
    if outcome.is_success:
        return Decision(disable_reason=disable_reason)
    failure_reason = disable_reason or _abort_reason(outcome)
    if failure_reason is not None or failure_count >= len(schedule):
        return Decision(failure_reason=failure_reason, disable_reason=disable_reason)
    delay = schedule[failure_count] * (1 + MAX_JITTER * jitter)
    return Decision(delay_seconds=max(delay, _retry_after(outcome, now)))


def _disable_reason(outcome: Outcome) -> str | None:
    if not outcome.is_answered:
        return None
    if outcome.status_code == GONE:
        return "The receiver answered 410 Gone."
    if _control(outcome) == DISABLE:
        return "The receiver answered webhook-delivery: disable."
    return None


def _abort_reason(outcome: Outcome) -> str | None:
    return "The receiver answered webhook-delivery: abort-message." if _control(outcome) == ABORT else None


def _control(outcome: Outcome) -> str:
    return (outcome.header(CONTROL_HEADER) or "").lower() if outcome.is_answered else ""


def _retry_after(outcome: Outcome, now: datetime) -> float:
    """Return the seconds that the receiver asked for (RFC 9110, 10.2.3); 0 if it did not, or not sensibly."""
    text = outcome.header("retry-after")
    if not outcome.is_answered or outcome.status_code not in RETRY_AFTER_STATUSES or not text:
        return 0
    if text.isascii() and text.isdecimal():
        return min(float(text[:12]), LONGEST_RETRY_AFTER_SECONDS)
    try:
        seconds = (parsedate_to_datetime(text) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return 0
    return min(max(seconds, 0), LONGEST_RETRY_AFTER_SECONDS)
