"""The claim: who tries what, and when.

A pending request is due at `next_attempt_at`, by the database's clock, and all that becomes
of it is a move of that time. It is stored as due now. A claim moves its time past a lease,
counts the attempt and leaves a fresh `lease_token`; settling (settlements.py) clears the
token, and either ends the request or sets the time of its retry. A settlement counts only
with the token of the current lease: the late word of a worker that was frozen past its own
goes into the log and changes nothing, unless it is that a waiting request was delivered.

A worker that dies leaves leases that run out, each a due time like any other: the claim that
finds it logs the lost attempt and takes the request again. So there is nothing to clean up,
ever. A request that loses MAX_LOST_IN_A_ROW workers may be what kills them, and is failed
here; before its last chance it is a suspect, and a worker tries one suspect at a time. A
worker that lives and did not send what it claimed gives it back (unsent.py).

What is due may be held by its subscription, which is paused or disabled, has an open circuit,
has no slot or call of its rate limit left, or is ordered and waits for another request
(eligibility.py has these conditions). A claim passes over it, and it stays due: that spends
no attempt, and nobody has to be told when the hold is over.

Claiming takes two statements in one transaction. The first (walks.py) walks the subscriptions
that have something due, from where the last claim stopped, and locks those that no other
worker is claiming from. The second (takes.py), with a snapshot taken under those locks, counts
what each has in flight and takes what is free: that makes the caps exact across workers. The
locks do not hinder ingestion, whose foreign keys only need the weaker KEY SHARE.

A claim looks at so many subscriptions, and the next goes on where it stopped. When each has
been visited a round is over; dispatcher.py says when another one begins.
"""

import sys
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction

from deliveries import sql, takes, walks
from deliveries.leases import ClaimedRequest
from deliveries.slots import Slots
from deliveries.takes import Room
from deliveries.unsent import UnansweredClaims
from deliveries.walks import Stretch, Walk

# Walks per claim: together some 10 ms, however many subscriptions there are that are held or
# wait. The next claim goes on where this one stopped.
MOST_WALKS = 2

# Payloads in the memory of one worker, in bytes.
MAX_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """The requests of one claim.

    The next claim goes on after `stopped_after`, from the first subscription if that is
    None. `until` is where the round ends that this claim did not come to the end of; None
    if it did. `has_more` tells that a subscription had its full share and may have more due;
    `rate_held_seconds` after what time a rate limit lets through what it held back, None
    if it held back nothing. `lost_attempts` counts the leases that had run out.
    """

    requests: list[ClaimedRequest]
    lost_attempts: int
    stopped_after: uuid.UUID | None
    until: uuid.UUID | None
    has_more: bool
    rate_held_seconds: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Visit:
    """A walk, what was taken of its subscriptions and found lost, and whether one of them had its full share."""

    walk: Walk
    requests: list[ClaimedRequest]
    lost_attempts: int
    has_more: bool


def claim(
    limit: int,
    *,
    slots: Slots | None = None,
    after: uuid.UUID | None = None,
    until: uuid.UUID | None = None,
    with_suspect: bool = True,
    max_bytes: int = MAX_BYTES,
    unanswered: UnansweredClaims | None = None,
) -> Claim:
    """Take up to `limit` due requests under a fresh lease, one suspect among them at most.

    Stops at the request whose payload goes over `max_bytes`, which it still takes. Leaves
    what its customer may not have of the worker's `slots`.

    Visits the subscriptions round robin, from after `after` to `until`, or to where it
    began, and takes from each no more than its free slots. Fewer than `limit` come back
    when nothing more is due, when others are claiming from the rest, when the share of each
    subscription was less, or when there are more subscriptions than one claim looks at.

    What was taken, if the database's answer does not come, is left in `unanswered`.
    """
    unanswered = UnansweredClaims() if unanswered is None else unanswered
    planned = Slots(sys.maxsize) if slots is None else slots.copy()
    room = Room(requests=limit, suspects=int(with_suspect), size=max_bytes)
    start = after or walks.FIRST
    stretches = walks.stretches(start, until or start)
    visits: list[_Visit] = []
    while stretches and not room.is_full and len(visits) < MOST_WALKS:
        try:
            visit = _visit(stretches[0], room, planned, unanswered)
        except sql.AWAY:
            if not any(visit.requests for visit in visits):
                raise
            # What was taken before is to be sent; whoever asks the database next finds it away.
            break
        visits.append(visit)
        room = room.less(visit.requests)
        for request in visit.requests:
            planned.take(request.target.customer)
        stretches[:1] = visit.walk.rest
    return _claim_of(visits, stretches)


def _visit(stretch: Stretch, room: Room, slots: Slots, unanswered: UnansweredClaims) -> _Visit:
    """Walk over one stretch of subscriptions, and take what is due, in one transaction."""
    token = uuid.uuid4()
    with transaction.atomic():
        walk = walks.walk(*stretch, room.requests, satisfied=slots.satisfied)
        customers = {target.id: target.customer for target in walk.targets.values()}
        shares = slots.share_out(room.requests, customers)
        if not shares:
            return _Visit(walk=walk, requests=[], lost_attempts=0, has_more=False)
        unanswered.note(token)
        taken = takes.take(shares, room, token)
    unanswered.forget(token)
    counts = Counter(one.subscription_id for one in taken)
    return _Visit(
        walk=walk,
        requests=[
            one.under_lease(walk.targets[one.subscription_id], token, at=walk.at)
            for one in taken
            if not one.is_poison
        ],
        lost_attempts=sum(one.is_lost for one in taken),
        has_more=any(count >= shares[one] for one, count in counts.items()),
    )


def _claim_of(visits: Sequence[_Visit], rest: Sequence[Stretch]) -> Claim:
    """Put together what came of the visits; `rest` are the stretches that were not visited."""
    held = [visit.walk.rate_held_seconds for visit in visits if visit.walk.rate_held_seconds is not None]
    return Claim(
        requests=[request for visit in visits for request in visit.requests],
        lost_attempts=sum(visit.lost_attempts for visit in visits),
        stopped_after=rest[0][0] if rest else None,
        until=rest[-1][1] if rest else None,
        has_more=any(visit.has_more for visit in visits),
        rate_held_seconds=min(held, default=None),
    )
