"""Test calls: what a delivery would come to, tried now and answered at once.

A trial is a real call: the same transport, address rules, signatures, headers and auth. It
is no webhook request, so that nothing of it is stored, retried or counted by the circuit.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from uuid import UUID

import limits

from deliveries import calls, courier
from deliveries.leases import Target
from deliveries.outcome import HINTS, ErrorClass, Outcome
from deliveries.slots import Slots
from subscriptions import rate_limits
from subscriptions.ids import new_id
from subscriptions.models import Subscription
from subscriptions.problems import Problem
from subscriptions.secrets import UnreadableSecret

logger = logging.getLogger(__name__)

# A trial holds a thread of web for as long as the receiver takes: of the 16 of a process
# these at most, shared among customers as a worker shares its calls.
MOST_AT_ONCE = 4
RETRY_AFTER_SECONDS = 5

# For each subscription: enough for a person who tries things, too few to make a load of.
LIMIT = limits.parse("20/minute")

_slots = Slots(MOST_AT_ONCE)
_lock = Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A test call and what it came to."""

    webhook_id: UUID
    event_type: str
    attempted_at: datetime
    outcome: Outcome

    @property
    def hint(self) -> str | None:
        """What the owner of the receiver may do about the outcome, in words."""
        error = self.outcome.error
        return None if error is None else self.outcome.hint or HINTS[error]

    @property
    def response_body(self) -> str:
        return self.outcome.response_body.decode(errors="replace")


def run(subscription: Subscription, event_type: str, payload: bytes) -> Trial:
    """Call the subscription's receiver now and return what came of it, within the subscription's call limit.

    Raises Problem (429) beyond LIMIT, and while as many trials as may be are being made, in this
    process or of the subscription's customer.
    """
    rate_limits.count(f"test {subscription.id}", LIMIT, whose="tests of this subscription")
    target = Target.of_subscription(subscription)
    with _slot_of(target.customer):
        return _call(target, event_type, payload)


@contextmanager
def _slot_of(customer: str) -> Iterator[None]:
    """Hold a slot; raise Problem (429) if this customer may have none."""
    with _lock:
        if not _slots.allowance(customer):
            raise _too_many()
        _slots.take(customer)
    try:
        yield
    finally:
        with _lock:
            _slots.give_back(customer)


def _too_many() -> Problem:
    return Problem(
        status=429,
        code="too_many_tests",
        detail="Too many test calls are being made at this moment. Try again.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def _call(target: Target, event_type: str, payload: bytes) -> Trial:
    webhook_id, at = new_id(), datetime.now(UTC)
    try:
        call = calls.build(
            target,
            tag=None,
            request_id=webhook_id,
            event_type=event_type,
            attempt_number=1,
            payload=payload,
            at=at,
        )
        outcome = courier.send_one(call)
    except (ValueError, UnreadableSecret):
        # As in a delivery: what is stored cannot be sent. The log says why, the caller may not know.
        logger.exception("a test call cannot be made", extra={"subscription_id": str(target.id)})
        outcome = Outcome(error=ErrorClass.INTERNAL, response_ms=0)
    return Trial(webhook_id=webhook_id, event_type=event_type, attempted_at=at, outcome=outcome)
