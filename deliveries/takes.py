"""The take: lease what is due of the subscriptions that a walk has locked, as much as is free."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.conf import settings

from deliveries import sql
from deliveries.eligibility import CALLS_IN_RATE_WINDOW, FREE_SLOTS, MAY_BE_TRIED, RATE_CALLS
from deliveries.leases import LOST_BY_A_SUSPECT, MAX_LOST_IN_A_ROW, ClaimedRequest, Target

# Claims that a rate limit's window remembers: those of the last second are far fewer.
METER_LENGTH = 1_000

# What is due of a subscription while no expired lease of it comes first.
IS_DUE = """
    subscription_id = free.id AND free.expired_id IS NULL
    AND status = 'pending' AND next_attempt_at <= statement_timestamp()
"""
# How many workers in a row it has lost, with the one whose lease has run out.
LOSSES = "lost_count + (lease_token IS NOT NULL)::int"

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
                WHERE {IS_DUE} AND lost_count > 0 AND {LOSSES} = %(suspect_lost)s
                ORDER BY next_attempt_at, id
                LIMIT %(suspects)s
            ) AS suspect
            UNION ALL
            SELECT *
            FROM (
                SELECT *
                FROM webhook_requests
                WHERE {IS_DUE} AND {LOSSES} <> %(suspect_lost)s
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
RETURNING -- what Taken reads, in its order
    r.id, r.subscription_id, r.event_type, coalesce(r.payload, events.payload), r.attempt_count, r.trigger,
    r.failure_count, picked.is_poison, picked.lost_count, r.received_at, picked.is_lost
"""  # noqa: S608 - made of constants  # nosec B608


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


class Taken(NamedTuple):
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

    def under_lease(self, target: Target, token: uuid.UUID, *, at: datetime) -> ClaimedRequest:
        return ClaimedRequest(
            id=self.id,
            target=target,
            event_type=self.event_type,
            payload=self.payload,
            received_at=self.received_at,
            attempt_number=self.attempt_number,
            trigger=self.trigger,
            failure_count=self.failure_count,
            lost_count=self.lost_count,
            lease_token=token,
            claimed_at=at,
        )


def take(shares: Mapping[uuid.UUID, int], room: Room, token: uuid.UUID) -> list[Taken]:
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
    return [Taken(*row) for row in sql.run(TAKE, parameters)]
