"""The claim: the statements that decide who tries what, and when.

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

Claiming takes two statements in one transaction. The first walks the subscriptions that
have something due, from where the last claim stopped, and locks those that no other
worker is claiming from. The second, with a snapshot taken under those locks, counts what
each has in flight and takes what is free: that makes the caps exact across workers. The
locks do not hinder ingestion, whose foreign keys only need the weaker KEY SHARE.

A claim looks at so many subscriptions, and the next goes on where it stopped. When each has
been visited a round is over; dispatcher.py says when another one begins.
"""

import sys
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.conf import settings
from django.db import transaction

from deliveries import sql
from deliveries.eligibility import (
    CALLS_IN_RATE_WINDOW,
    CUSTOMER,
    FREE_SLOTS,
    MAY_BE_TRIED,
    RATE_CALLS,
    RATE_WINDOW,
)
from deliveries.leases import LOST_BY_A_SUSPECT, MAX_LOST_IN_A_ROW, ClaimedRequest, Target
from deliveries.slots import Slots
from deliveries.unsent import UnansweredClaims

# Subscriptions looked at per walk, and walks per claim: together some 10 ms, however many
# there are that are held or wait. The next claim goes on where this one stopped.
WALK_LENGTH = 1_000
MOST_WALKS = 2

# Payloads in the memory of one worker, in bytes.
MAX_BYTES = 128 * 1024 * 1024

# Claims that a rate limit's window remembers: those of the last second are far fewer.
METER_LENGTH = 1_000

FIRST = uuid.UUID(int=0)
LAST = uuid.UUID(int=2**128 - 1)

# The subscriptions after the first up to the second.
Stretch = tuple[uuid.UUID, uuid.UUID]

# A loose index scan over requests_pending: one index descent per subscription, whatever
# the length of its queue, because the first entry of each holds its earliest due time.
VISITED = """
walk (subscription_id, next_attempt_at) AS (
    (
        SELECT subscription_id, next_attempt_at
        FROM webhook_requests
        WHERE status = 'pending' AND subscription_id > %(after)s AND subscription_id <= %(until)s
        ORDER BY subscription_id, next_attempt_at
        LIMIT 1
    )
    UNION ALL
    SELECT following.subscription_id, following.next_attempt_at
    FROM walk
    CROSS JOIN LATERAL (
        SELECT subscription_id, next_attempt_at
        FROM webhook_requests
        WHERE status = 'pending' AND subscription_id > walk.subscription_id AND subscription_id <= %(until)s
        ORDER BY subscription_id, next_attempt_at
        LIMIT 1
    ) AS following
),
visited AS MATERIALIZED (
    SELECT subscription_id, next_attempt_at FROM walk LIMIT %(length)s
)
"""

# Of those visited, who may be tried at all, and has a slot free? A rate limit that is used
# up is told apart, because it is over within moments.
WALK = f"""
WITH RECURSIVE {VISITED},
candidates AS MATERIALIZED (
    SELECT
        s.id,
        (
            SELECT CASE
                WHEN sum(recent.calls) >= {RATE_CALLS}
                THEN extract(epoch FROM min(recent.at) + {RATE_WINDOW} - statement_timestamp())::float
            END
            FROM {CALLS_IN_RATE_WINDOW}
        ) AS rate_held_seconds
    FROM visited
    JOIN subscriptions AS s ON s.id = visited.subscription_id
    WHERE visited.next_attempt_at <= statement_timestamp()
        AND {CUSTOMER} <> ALL(%(satisfied)s::text[])
        AND {MAY_BE_TRIED}
        AND {FREE_SLOTS} > 0
),
locked AS (
    -- what Target.of_row reads, in its order
    SELECT
        s.id, s.target_url,
        array_remove(
            ARRAY[s.secret, CASE WHEN s.previous_secret_until > statement_timestamp() THEN s.previous_secret END],
            NULL
        ),
        s.retry_schedule, s.timeout_seconds, {CUSTOMER}, s.headers::text, s.secret_headers, s.auth,
        s.ca_certificates
    FROM candidates
    JOIN subscriptions AS s USING (id)
    WHERE candidates.rate_held_seconds IS NULL
    ORDER BY s.id
    LIMIT %(limit)s
    FOR NO KEY UPDATE OF s SKIP LOCKED
)
SELECT
    locked.*,
    (SELECT count(*) FROM visited),
    (SELECT subscription_id FROM visited ORDER BY subscription_id DESC LIMIT 1),
    (SELECT min(rate_held_seconds) FROM candidates),
    statement_timestamp()
FROM (SELECT 1) AS always
LEFT JOIN locked ON true
"""  # noqa: S608 - made of constants  # nosec B608

# Counted anew under the locks, each subscription gets what it has free, up to its share.
# An expired lease is taken like any due request, and its attempt logged as lost; in an
# ordered subscription it comes before the others, which have waited for it.
TAKE = f"""
WITH free AS (
    SELECT
        s.id, s.ordered, s.rate_limit,
        (s.timeout_seconds + %(margin)s) * interval '1 second' AS lease,
        least(
            walked.share,
            {FREE_SLOTS},
            CASE WHEN s.rate_limit IS NOT NULL THEN {RATE_CALLS} - (
                SELECT coalesce(sum(recent.calls), 0) FROM {CALLS_IN_RATE_WINDOW}
            ) END
        ) AS slots,
        CASE WHEN s.ordered THEN (
            SELECT expired.id
            FROM webhook_requests AS expired
            WHERE expired.subscription_id = s.id
                AND expired.lease_token IS NOT NULL
                AND expired.next_attempt_at <= statement_timestamp()
            LIMIT 1
        ) END AS expired_id
    FROM unnest(%(subscription_ids)s::uuid[], %(shares)s::int[]) AS walked (id, share)
    JOIN subscriptions AS s USING (id)
    -- once more, for what changed before the lock was had
    WHERE {MAY_BE_TRIED}
),
offered AS (
    SELECT
        r.id, r.subscription_id, r.event_id, r.attempt_count, r.trigger, free.lease,
        r.next_attempt_at - free.lease AS leased_at, -- of a lease that ran out
        r.lease_token IS NOT NULL AS is_lost,
        r.lost_count + (r.lease_token IS NOT NULL)::int AS lost_count,
        coalesce(octet_length(r.payload), (SELECT octet_length(payload) FROM events WHERE id = r.event_id)) AS size
    FROM free
    CROSS JOIN LATERAL (
        SELECT *
        FROM (
            SELECT * FROM webhook_requests WHERE id = free.expired_id
            UNION ALL
            -- apart from the rest: many suspects, of which one may be taken, would hide what is due behind them
            SELECT *
            FROM (
                SELECT *
                FROM webhook_requests
                WHERE subscription_id = free.id
                    AND free.expired_id IS NULL
                    AND status = 'pending'
                    AND lost_count > 0
                    AND next_attempt_at <= statement_timestamp()
                    AND lost_count + (lease_token IS NOT NULL)::int = %(suspect_lost)s
                ORDER BY next_attempt_at, id
                LIMIT %(suspects)s
            ) AS suspect
            UNION ALL
            SELECT *
            FROM (
                SELECT *
                FROM webhook_requests
                WHERE subscription_id = free.id
                    AND free.expired_id IS NULL
                    AND status = 'pending'
                    AND next_attempt_at <= statement_timestamp()
                    AND lost_count + (lease_token IS NOT NULL)::int <> %(suspect_lost)s
                ORDER BY next_attempt_at, id
                LIMIT greatest(free.slots, 0)
            ) AS due
        ) AS each
        LIMIT greatest(free.slots, 0)
    ) AS r
    WHERE free.slots > 0
),
picked AS MATERIALIZED (
    SELECT *, lost_count >= %(max_lost)s AS is_poison
    FROM (
        SELECT
            *,
            row_number() OVER (PARTITION BY lost_count = %(suspect_lost)s ORDER BY leased_at) AS place,
            sum(size) OVER (ROWS UNBOUNDED PRECEDING) - size AS size_before
        FROM offered
    ) AS placed
    WHERE (lost_count <> %(suspect_lost)s OR place <= %(suspects)s) AND size_before < %(max_bytes)s
    LIMIT %(limit)s
),
lost AS (
    INSERT INTO delivery_attempts (
        id, request_id, subscription_id, attempt_number, trigger, attempted_at, success, error,
        response_headers, response_body
    )
    SELECT
        -- a UUID of version 7, which PostgreSQL makes by itself only from 18 on
        encode(
            set_bit(set_bit(overlay(
                uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                FROM 1 FOR 6
            ), 52, 1), 53, 1),
            'hex'
        )::uuid,
        id, subscription_id, attempt_count, trigger, leased_at, false, 'worker_lost', '', ''
    FROM picked
    WHERE is_lost
    ON CONFLICT (request_id, attempt_number) DO NOTHING
),
metered AS (
    UPDATE subscriptions AS s
    SET
        rate_times = array(
            SELECT at FROM unnest(s.rate_times) AS at
            WHERE at > statement_timestamp() - interval '10 minutes' ORDER BY at DESC LIMIT %(meter_length)s
        ) || statement_timestamp(),
        rate_counts = array(
            SELECT calls FROM unnest(s.rate_times, s.rate_counts) AS recent (at, calls)
            WHERE at > statement_timestamp() - interval '10 minutes' ORDER BY at DESC LIMIT %(meter_length)s
        ) || taken.calls
    FROM (
        SELECT picked.subscription_id, count(*)::int AS calls
        FROM picked
        JOIN free ON free.id = picked.subscription_id
        WHERE free.rate_limit IS NOT NULL
        GROUP BY picked.subscription_id
    ) AS taken
    WHERE s.id = taken.subscription_id
)
UPDATE webhook_requests AS r
SET
    status = CASE WHEN picked.is_poison THEN 'failed' ELSE 'pending' END,
    error = CASE WHEN picked.is_lost THEN 'worker_lost' ELSE r.error END,
    settled_at = CASE WHEN picked.is_poison THEN statement_timestamp() END,
    next_attempt_at = CASE WHEN NOT picked.is_poison THEN statement_timestamp() + picked.lease END,
    lease_token = CASE WHEN NOT picked.is_poison THEN %(token)s::uuid END,
    attempt_count = r.attempt_count + CASE WHEN picked.is_poison THEN 0 ELSE 1 END,
    lost_count = picked.lost_count,
    trigger = CASE WHEN picked.is_lost AND r.trigger = 'initial' THEN 'retry' ELSE r.trigger END
FROM picked
LEFT JOIN events ON events.id = picked.event_id
WHERE r.id = picked.id
    -- Once more, for what was canceled or settled before the row's lock was had. In a CASE, so that no
    -- index but that of the ids is of use: without statistics all that is due was read for each.
    AND CASE WHEN r.status = 'pending' THEN r.next_attempt_at <= statement_timestamp() END
RETURNING -- what _Taken reads, in its order
    r.id, r.subscription_id, r.event_type, coalesce(r.payload, events.payload), r.attempt_count, r.trigger,
    r.failure_count, picked.is_poison, picked.lost_count, r.received_at, picked.is_lost
"""  # noqa: S608 - made of constants  # nosec B608


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
class Room:
    """How many requests may still be claimed, how many suspects among them, and how many bytes of payload."""

    requests: int
    suspects: int
    size: int

    @property
    def is_full(self) -> bool:
        return self.requests == 0 or self.size <= 0

    def less(self, taken: list[ClaimedRequest]) -> "Room":
        return Room(
            requests=self.requests - len(taken),
            suspects=self.suspects - sum(request.is_suspect for request in taken),
            size=self.size - sum(len(request.payload) for request in taken),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Walk:
    """The locked subscriptions of one walk, the rest of its stretch if any, and the database's time."""

    targets: dict[uuid.UUID, Target]
    rest: list[Stretch]
    rate_held_seconds: float | None
    at: datetime


class _Taken(NamedTuple):
    """What TAKE returns of a request, in its order."""

    id: uuid.UUID
    subscription_id: uuid.UUID
    event_type: str
    payload: bytes
    attempt_number: int
    trigger: str
    failure_count: int
    is_poison: bool
    lost_count: int
    received_at: datetime
    is_lost: bool

    def under_lease(self, walk: _Walk, token: uuid.UUID) -> ClaimedRequest:
        return ClaimedRequest(
            id=self.id,
            target=walk.targets[self.subscription_id],
            event_type=self.event_type,
            payload=self.payload,
            received_at=self.received_at,
            attempt_number=self.attempt_number,
            trigger=self.trigger,
            failure_count=self.failure_count,
            lost_count=self.lost_count,
            lease_token=token,
            claimed_at=walk.at,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Visit:
    """A walk, what was taken of its subscriptions and found lost, and whether one of them had its full share."""

    walk: _Walk
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
    start = after or FIRST
    stretches = _stretches(start, until or start)
    visits: list[_Visit] = []
    requests: list[ClaimedRequest] = []
    while stretches and not room.is_full and len(visits) < MOST_WALKS:
        try:
            visit = _visit(*stretches[0], room, planned, unanswered)
        except sql.AWAY:
            if not requests:
                raise
            # What was taken before is to be sent; whoever asks the database next finds it away.
            break
        visits.append(visit)
        requests += visit.requests
        room = room.less(visit.requests)
        for request in visit.requests:
            planned.take(request.target.customer)
        stretches[:1] = visit.walk.rest
    held = [visit.walk.rate_held_seconds for visit in visits if visit.walk.rate_held_seconds is not None]
    return Claim(
        requests=requests,
        lost_attempts=sum(visit.lost_attempts for visit in visits),
        stopped_after=stretches[0][0] if stretches else None,
        until=stretches[-1][1] if stretches else None,
        has_more=any(visit.has_more for visit in visits),
        rate_held_seconds=min(held, default=None),
    )


def _stretches(after: uuid.UUID, until: uuid.UUID) -> list[Stretch]:
    """Return the stretches of subscriptions after `after` up to `until`, round the end if need be."""
    if after < until:
        return [(after, until)]
    return [(after, LAST)] if until == FIRST else [(after, LAST), (FIRST, until)]


def _visit(after: uuid.UUID, until: uuid.UUID, room: Room, slots: Slots, unanswered: UnansweredClaims) -> _Visit:
    """Walk over one stretch of subscriptions, and take what is due, in one transaction."""
    token = uuid.uuid4()
    with transaction.atomic():
        walk = _walk(after, until, room.requests, satisfied=slots.satisfied)
        customers = {target.id: target.customer for target in walk.targets.values()}
        shares = slots.share_out(room.requests, customers)
        if not shares:
            return _Visit(walk=walk, requests=[], lost_attempts=0, has_more=False)
        unanswered.note(token)
        visit = _take(walk, room, shares, token)
    unanswered.forget(token)
    return visit


def _walk(after: uuid.UUID, until: uuid.UUID, limit: int, *, satisfied: list[str]) -> _Walk:
    """Lock up to `limit` subscriptions that have something due, and whose customers may have more in flight."""
    rows = sql.run(
        WALK, {"after": after, "until": until, "limit": limit, "length": WALK_LENGTH, "satisfied": satisfied}
    )
    targets = {row[0]: Target.of_row(row) for row in rows if row[0] is not None}
    visited, last_visited, rate_held_seconds, at = rows[0][-4:]
    stopped_after = until
    if len(targets) == limit:
        stopped_after = list(targets)[-1]
    elif visited == WALK_LENGTH:
        stopped_after = last_visited
    rest = [(stopped_after, until)] if stopped_after < until else []
    return _Walk(targets=targets, rest=rest, rate_held_seconds=rate_held_seconds, at=at)


def _take(walk: _Walk, room: Room, shares: dict[uuid.UUID, int], token: uuid.UUID) -> _Visit:
    """Take the shares of the locked subscriptions, as far as there is room."""
    parameters = {
        "subscription_ids": list(shares),
        "shares": list(shares.values()),
        "limit": room.requests,
        "margin": settings.LEASE_MARGIN_SECONDS,
        "max_lost": MAX_LOST_IN_A_ROW,
        "suspect_lost": LOST_BY_A_SUSPECT,
        "suspects": room.suspects,
        "max_bytes": room.size,
        "meter_length": METER_LENGTH,
        "token": token,
    }
    taken = [_Taken(*row) for row in sql.run(TAKE, parameters)]
    counts = Counter(one.subscription_id for one in taken)
    return _Visit(
        walk=walk,
        requests=[one.under_lease(walk, token) for one in taken if not one.is_poison],
        lost_attempts=sum(one.is_lost for one in taken),
        has_more=any(count >= shares[one] for one, count in counts.items()),
    )
