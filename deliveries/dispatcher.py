"""The loop: claim, send, settle, until nothing is due."""

import logging
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings

from deliveries import claims, retry
from deliveries.claims import ClaimedRequest, Settlement
from deliveries.outcome import ErrorClass, Outcome
from deliveries.transport import Call, Finished, Transport
from subscriptions import addresses, signing

logger = logging.getLogger(__name__)
attempt_logger = logging.getLogger("deliveries.attempts")

# Requests per claim: enough to spread its cost, few enough to keep it short.
CLAIM_SIZE = 500

# While calls are in flight: how often new work is looked for when someone says that
# there is some, and when nobody does.
SIGNAL_SECONDS = 0.01
LOOK_SECONDS = 1.0

# Outcomes wait this long for others, to be settled together.
SETTLE_SECONDS = 0.005
SETTLE_SIZE = 200

# After the last delivery the loop stays this long, because the next event is often near.
LINGER_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """What the dispatcher remembers of a call in flight."""

    request: ClaimedRequest
    attempted_at: datetime


class Dispatcher:
    """Delivers what is due, many calls at a time, from one thread.

    `work_waiting` tells whether someone has signalled new work since it was last asked;
    `keep_alive` is called every now and then while the loop runs; `should_stop` makes it
    claim nothing more and end when the calls in flight are settled.
    """

    def __init__(
        self,
        *,
        work_waiting: Callable[[], bool],
        should_stop: Callable[[], bool],
        keep_alive: Callable[[], None],
    ) -> None:
        self._work_waiting = work_waiting
        self._should_stop = should_stop
        self._keep_alive = keep_alive
        self._transport = Transport(
            user_agent=f"webhook-delivery-service/{settings.VERSION}",
            allowed_networks=addresses.parse_networks(settings.ALLOWED_NETWORKS),
        )
        self._stopped_after: uuid.UUID | None = None
        self._unsettled: list[Settlement] = []
        self._unsettled_since = 0.0

    def drain(self) -> int:
        """Deliver until nothing is due and nothing in flight; return how many attempts were made."""
        attempts = 0
        more = True
        looked_at = busy_at = signalled_at = time.monotonic()
        while True:
            now = time.monotonic()
            if now - signalled_at >= SIGNAL_SECONDS:
                signalled_at = now
                more = self._work_waiting() or more
            self._keep_alive()
            if self._free_slots and not self._should_stop() and (more or now - looked_at >= LOOK_SECONDS):
                more = self._claim()
                looked_at = now
            for finished in self._transport.wait(SETTLE_SECONDS):
                self._note(finished)
                attempts += 1
            more = self._settle_if_worth() or more
            if self._transport.in_flight or self._unsettled:
                busy_at = time.monotonic()
            elif self._should_stop() or (not more and self._has_lingered(attempts, busy_at)):
                return attempts

    def close(self) -> None:
        self._transport.close()

    @property
    def _free_slots(self) -> int:
        return int(settings.WORKER_CONCURRENCY) - self._transport.in_flight

    def _has_lingered(self, attempts: int, busy_at: float) -> bool:
        if not attempts:
            return True
        if time.monotonic() - busy_at >= LINGER_SECONDS:
            return True
        time.sleep(SETTLE_SECONDS)
        return False

    def _claim(self) -> bool:
        """Claim and send; return whether more may be due at once."""
        limit = min(self._free_slots, CLAIM_SIZE)
        claim = claims.claim(limit, after=self._stopped_after)
        self._stopped_after = claim.stopped_after
        received_at = time.monotonic()
        for request in claim.requests:
            self._send(request, request.claimed_at + timedelta(seconds=time.monotonic() - received_at))
        return len(claim.requests) == limit

    def _send(self, request: ClaimedRequest, attempted_at: datetime) -> None:
        sent = Sent(request=request, attempted_at=attempted_at)
        # The boundary around one delivery: whatever is wrong with this row must not stop
        # the others, and is an attempt that failed.
        try:
            self._transport.send(_call(sent))
        except Exception:
            logger.exception("a request cannot be sent", extra={"request_id": str(request.id)})
            self._settle_later(sent, Outcome(error=ErrorClass.INTERNAL, response_ms=0))

    def _note(self, finished: Finished) -> None:
        self._settle_later(finished.call.tag, finished.outcome)

    def _settle_later(self, sent: Sent, outcome: Outcome) -> None:
        request = sent.request
        decision = retry.next_attempt(
            outcome,
            request.target.retry_schedule,
            failure_count=request.failure_count,
            jitter=random.random(),  # noqa: S311 - spreads load, hides nothing
        )
        if not self._unsettled:
            self._unsettled_since = time.monotonic()
        self._unsettled.append(
            Settlement(request=request, attempted_at=sent.attempted_at, outcome=outcome, decision=decision)
        )

    def _settle_if_worth(self) -> bool:
        """Settle what has waited long enough for company; return whether slots became free by it."""
        if not self._unsettled:
            return False
        waited = time.monotonic() - self._unsettled_since
        if self._transport.in_flight and waited < SETTLE_SECONDS and len(self._unsettled) < SETTLE_SIZE:
            return False
        settlements, self._unsettled = self._unsettled, []
        claims.settle(settlements)
        for settlement in settlements:
            _log_attempt(settlement)
        return True


def _call(sent: Sent) -> Call:
    """Build the call of one attempt: the payload's bytes, both signatures, the documented headers."""
    request = sent.request
    keys = request.target.signing_keys
    message_id = str(request.id)
    timestamp = int(sent.attempted_at.timestamp())
    standard = signing.sign_standard(keys, message_id=message_id, timestamp=timestamp, body=request.payload)
    return Call(
        tag=sent,
        url=request.target.url,
        headers=[
            "Content-Type: application/json",
            f"webhook-id: {message_id}",
            f"webhook-timestamp: {timestamp}",
            f"webhook-signature: {standard}",
            f"X-Webhook-Signature: {signing.sign_body(keys[0], request.payload)}",
            f"X-Webhook-Event: {request.event_type}",
            f"X-Webhook-Attempt: {request.attempt_number}",
        ],
        body=request.payload,
        timeout_seconds=request.target.timeout_seconds,
    )


def _log_attempt(settlement: Settlement) -> None:
    """Write the one line that tells what an attempt came to and what was decided."""
    if not attempt_logger.isEnabledFor(logging.INFO):
        return
    request, outcome = settlement.request, settlement.outcome
    attempt_logger.info(
        "delivery attempted",
        extra={
            "request_id": str(request.id),
            "subscription_id": str(request.target.id),
            "attempt": request.attempt_number,
            "trigger": request.trigger,
            "status_code": outcome.status_code,
            "error": outcome.error,
            "response_ms": outcome.response_ms,
            "retry_in_seconds": settlement.decision.delay_seconds,
        },
    )
