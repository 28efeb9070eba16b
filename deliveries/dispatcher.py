"""The loop: claim, send, settle, until nothing is due.

Who has made something due wakes a worker: an ingest call when it is committed, a replay, and
the scheduler at every tick; a worker that nobody wakes looks every few seconds by itself. A
wake-up says no more than that (queue.py): the worker calls `drain`, which asks the database
what is due (claims.py). So one that is lost costs a tick, and one too many costs a claim.

Looking goes in rounds, in which each subscription is visited once. A new word of work, or
calls that were settled and so left slots, begin a round at once. With calls in flight and
no such word there is one every LOOK_SECONDS, for what becomes due without anybody saying so:
retries, leases of workers that died, whatever was held. After a round that found nothing,
with nothing in flight, the loop ends.

What came of a call is an outcome. retry.py decides by it whether and when the request is
tried again, and settlements.py stores both: the attempt goes into the log, and under its
lease's token the request is delivered, failed, or due at the time of its retry, which is
found like anything else that is due. The same statement keeps the circuit breaker and blocks
ordered subscriptions behind a failure, which is what the next claim asks for.
"""

import logging
import math
import random
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec
from django.conf import settings
from django.db import DataError, IntegrityError, connection
from msgspec.structs import replace

from deliveries import calls, claims, retry, settlements, sql, unsent
from deliveries.courier import open_courier
from deliveries.leases import ClaimedRequest
from deliveries.outcome import ErrorClass, Outcome
from deliveries.settlements import Settlement
from deliveries.slots import Slots
from deliveries.tallies import Tally
from deliveries.transport import Call
from deliveries.unsent import UnansweredClaims

logger = logging.getLogger(__name__)
attempt_logger = logging.getLogger("deliveries.attempts")

# Requests per claim: enough to spread its cost, few enough to keep it short.
CLAIM_SIZE = 500

# While calls are in flight: how often new work is looked for when someone says that
# there is some, and when nobody says anything.
SIGNAL_SECONDS = 0.01
LOOK_SECONDS = 1.0

# Outcomes wait this long for others, to be settled together.
SETTLE_SECONDS = 0.005
SETTLE_SIZE = 200

# After the last delivery the loop stays this long, because the next event is often near.
LINGER_SECONDS = 0.05

# A claim or a settling that takes longer than this, in seconds, is cut off with its connection:
# it may wait for a database that is gone without a word, and the calls in flight wait with it.
DATABASE_SECONDS = 3.0

# A database that is away is tried again this often, while there are calls to settle.
AWAY_SECONDS = 0.5


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What the dispatcher remembers of a call in flight; begun at `attempted_at` by the database's clock."""

    request: ClaimedRequest
    attempted_at: datetime


class Dispatcher:
    """Delivers what is due, many calls at a time, from one thread.

    `work_waiting` tells whether someone has signalled new work since it was last asked;
    `keep_alive` is called every now and then while the loop runs; `should_stop` makes it
    claim nothing more and end when the calls in flight are settled. What came of the attempts
    is counted in `tally`. Claims whose answer does not come are kept in `unanswered`, which may
    outlive the dispatcher, and given back before the next one.
    """

    def __init__(
        self,
        *,
        work_waiting: Callable[[], bool],
        should_stop: Callable[[], bool],
        keep_alive: Callable[[], None],
        tally: Tally | None = None,
        unanswered: UnansweredClaims | None = None,
    ) -> None:
        self._work_waiting = work_waiting
        self._should_stop = should_stop
        self._keep_alive = keep_alive
        self._tally = Tally() if tally is None else tally
        self._unanswered = UnansweredClaims() if unanswered is None else unanswered
        self._transport = open_courier()
        self._slots = Slots(settings.WORKER_CONCURRENCY)
        # The round: the subscription after which the next claim begins, the last one to visit
        # (None if a round is to begin), and when a rate limit that held something lets it go.
        self._stopped_after: uuid.UUID | None = None
        self._until: uuid.UUID | None = None
        self._rate_free_at = math.inf
        self._unsettled: list[Settlement] = []
        self._unsettled_since = 0.0
        # Of what is in flight or not settled yet: how many suspects, and bytes of payload.
        self._suspects = 0
        self._bytes = 0
        # Times of the monotonic clock: the next claim, the last question for signals, and until
        # when the database is left alone.
        self._look_at = 0.0
        self._signalled_at = 0.0
        self._away_until = 0.0

    def drain(self) -> int:
        """Deliver until nothing is due and nothing in flight; return how many attempts were made.

        Outlives a database that goes away as long as there are calls to settle, so that no
        attempt is lost by it; raises the database's error if there are none.
        """
        attempts = 0
        self._begin_round()
        busy_at = time.monotonic()
        while True:
            if not self._is_away:
                self._keep_alive()
            self._note_signals()
            # Settling comes first: what was kept through an outage may have outlived its lease,
            # and would be claimed again though it was delivered.
            if self._is_settling_worth_it():
                self._settle()
            if self._may_claim():
                self._claim()
            for finished in self._transport.wait(SETTLE_SECONDS):
                self._settle_later(finished.call.tag, finished.outcome)
                attempts += 1
            if not self._is_busy and self._is_done(attempts, busy_at):
                return attempts
            if self._is_busy:
                busy_at = time.monotonic()
            if not self._transport.in_flight and not self._may_claim():
                time.sleep(SETTLE_SECONDS)

    def close(self) -> None:
        self._transport.close()

    @property
    def _is_busy(self) -> bool:
        return bool(self._transport.in_flight or self._unsettled)

    @property
    def _is_away(self) -> bool:
        """Whether the database was found to be away a moment ago."""
        return time.monotonic() < self._away_until

    def _note_signals(self) -> None:
        now = time.monotonic()
        if now - self._signalled_at >= SIGNAL_SECONDS:
            self._signalled_at = now
            if self._work_waiting():
                self._begin_round()

    def _begin_round(self) -> None:
        """Look at once for what is due, and not stop before every subscription has been visited from now on."""
        self._look_at = 0.0
        self._until = None

    def _may_claim(self) -> bool:
        is_due = time.monotonic() >= self._look_at
        has_room = self._slots.free > 0 and self._bytes < claims.MAX_BYTES
        return is_due and has_room and not self._is_away and not self._should_stop()

    def _is_done(self, attempts: int, busy_at: float) -> bool:
        """Whether to end, now that nothing is in flight and everything settled."""
        if self._should_stop():
            return True
        now = time.monotonic()
        has_to_look = self._look_at <= now or self._rate_free_at - now < LOOK_SECONDS
        lingers = attempts > 0 and now - busy_at < LINGER_SECONDS
        return not has_to_look and not lingers

    def _claim(self) -> None:
        """Claim and send."""
        if self._until is None:  # a round begins
            self._rate_free_at = math.inf
        limit = min(self._slots.free, CLAIM_SIZE)
        asked_at = time.monotonic()
        try:
            with sql.deadline(DATABASE_SECONDS):
                self._unanswered.give_back()
                claim = claims.claim(
                    limit,
                    slots=self._slots,
                    after=self._stopped_after,
                    until=self._until,
                    with_suspect=self._suspects == 0,
                    max_bytes=claims.MAX_BYTES - self._bytes,
                    unanswered=self._unanswered,
                )
        except sql.AWAY as error:
            self._outlive(error)
            return
        self._tally.note_lost(claim.lost_attempts)
        self._decide_when_to_look(claim, limit)
        self._send_all(claim.requests, asked_at)

    def _send_all(self, requests: list[ClaimedRequest], asked_at: float) -> None:
        claimed_at = time.monotonic()
        for number, request in enumerate(requests):
            if not _ends_within_its_lease(asked_at):
                self._give_back(requests[number:])
                return
            self._send(request, request.claimed_at + timedelta(seconds=time.monotonic() - claimed_at))

    def _give_back(self, requests: list[ClaimedRequest]) -> None:
        """Give back what was claimed too late to be sent."""
        logger.warning("claimed too late to be sent", extra={"requests": len(requests)})
        try:
            with sql.deadline(DATABASE_SECONDS):
                unsent.give_back(requests)
        except sql.AWAY as error:
            self._outlive(error)  # the leases of these run out, as if their worker were lost
        self._begin_round()

    def _decide_when_to_look(self, claim: claims.Claim, limit: int) -> None:
        now = time.monotonic()
        self._stopped_after, self._until = claim.stopped_after, claim.until
        if claim.rate_held_seconds is not None:
            self._rate_free_at = min(self._rate_free_at, now + claim.rate_held_seconds)
        if claim.has_more or len(claim.requests) == limit:
            self._begin_round()
        elif claim.until is not None:
            self._look_at = 0.0
        else:
            self._look_at = min(self._rate_free_at, now + LOOK_SECONDS)

    def _outlive(self, error: Exception) -> None:
        """Wait for the database if there are calls to settle; else raise its error."""
        connection.close()
        if not self._is_busy:
            raise error
        logger.warning("the database is away; calls in flight wait for it", extra={"reason": str(error)})
        self._away_until = time.monotonic() + AWAY_SECONDS

    def _send(self, request: ClaimedRequest, attempted_at: datetime) -> None:
        sent = Sent(request=request, attempted_at=attempted_at)
        self._slots.take(request.target.customer)
        self._suspects += request.is_suspect
        self._bytes += len(request.payload)
        # The boundary around one delivery: whatever is wrong with this row must not stop
        # the others, and is an attempt that failed.
        try:
            self._transport.send(_call(sent))
        except Exception:
            logger.exception("a request cannot be sent", extra={"request_id": str(request.id)})
            self._settle_later(sent, Outcome(error=ErrorClass.INTERNAL, response_ms=0))

    def _settle_later(self, sent: Sent, outcome: Outcome) -> None:
        request = sent.request
        self._slots.give_back(request.target.customer)
        decision = retry.next_attempt(
            outcome,
            request.target.retry_schedule,
            failure_count=request.failure_count,
            jitter=random.random(),  # noqa: S311 - spreads load, hides nothing  # nosec B311
            now=sent.attempted_at,
        )
        if not self._unsettled:
            self._unsettled_since = time.monotonic()
        self._unsettled.append(
            Settlement(request=request, attempted_at=sent.attempted_at, outcome=outcome, decision=decision)
        )

    def _is_settling_worth_it(self) -> bool:
        if not self._unsettled or self._is_away:
            return False
        waited = time.monotonic() - self._unsettled_since
        return not self._transport.in_flight or waited >= SETTLE_SECONDS or len(self._unsettled) >= SETTLE_SIZE

    def _settle(self) -> None:
        """Settle what has come in, and look for more at once: slots have become free."""
        try:
            with sql.deadline(DATABASE_SECONDS):
                settlements.settle(self._unsettled)
        except sql.AWAY as error:
            self._outlive(error)
            return
        except (DataError, IntegrityError):
            logger.exception("attempts cannot be settled together")
            self._settle_one_by_one()
            return
        self._note_settled()

    def _note_settled(self) -> None:
        settled, self._unsettled = self._unsettled, []
        self._suspects -= sum(settlement.request.is_suspect for settlement in settled)
        self._bytes -= sum(len(settlement.request.payload) for settlement in settled)
        self._begin_round()
        self._tally.note(settled)
        for settlement in settled:
            _log_attempt(settlement)

    def _settle_one_by_one(self) -> None:
        """Settle each by itself, an answer that the database does not take without its texts."""
        try:
            for settlement in self._unsettled:
                bare = replace(settlement.outcome, response_headers="", response_body=b"")
                if not _settle_alone(settlement):
                    _settle_alone(replace(settlement, outcome=bare))
        except sql.AWAY as error:
            self._outlive(error)
            return
        self._note_settled()


def _settle_alone(settlement: Settlement) -> bool:
    """Return whether the database took it. Raises the errors of one that is away."""
    try:
        with sql.deadline(DATABASE_SECONDS):
            settlements.settle([settlement])
    except (DataError, IntegrityError):
        logger.exception("an attempt cannot be settled", extra={"request_id": str(settlement.request.id)})
        return False
    return True


def _ends_within_its_lease(asked_at: float) -> bool:
    """Return whether a call that begins now ends before its lease does.

    A lease lasts the call's limit and a margin; it began after `asked_at`, on this host's
    monotonic clock. With a claim whose answer came late, or a worker that was frozen over it,
    another may have the request by the time that the call would end.
    """
    return time.monotonic() - asked_at < float(settings.LEASE_MARGIN_SECONDS)


def _call(sent: Sent) -> Call:
    request = sent.request
    return calls.build(
        request.target,
        tag=sent,
        request_id=request.id,
        event_type=request.event_type,
        attempt_number=request.attempt_number,
        payload=request.payload,
        at=sent.attempted_at,
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
