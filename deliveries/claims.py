"""The statements that decide who tries what: claim what is due, settle what was tried.

A pending request is due at `next_attempt_at`, by the database's clock. Claiming moves
that time past a lease and leaves a fresh `lease_token`; settling clears the token and
either ends the request or sets the next due time. A worker that dies leaves a lease that
runs out, which is a due time like any other: the claim that finds it logs the lost
attempt and takes the request again. So there is nothing to clean up, ever.

Claiming takes two statements in one transaction. The first walks the subscriptions that
have something due, from where the last claim stopped, and locks those that no other
worker is claiming from. The second, with a snapshot taken under those locks, counts what
each has in flight and takes what is free: that makes the caps exact across workers. The
locks do not hinder ingestion, whose foreign keys only need the weaker KEY SHARE.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from django.conf import settings
from django.db import IntegrityError, OperationalError, transaction

from deliveries import sql
from deliveries.outcome import Outcome
from deliveries.retry import Decision
from subscriptions import secrets, signing

# A request whose worker was lost this often in a row is failed: it may be what kills them.
MAX_LOST_IN_A_ROW = 3

# Subscriptions looked at per walk; a claim walks on until it has enough or is round.
WALK_LENGTH = 2_000
SETTLE_TRIES = 3

_FIRST = uuid.UUID(int=0)
_LAST = uuid.UUID(int=2**128 - 1)

# A loose index scan over requests_pending: one index descent per subscription, whatever
# the length of its queue, because the first entry of each holds its earliest due time.
WALK = """
WITH RECURSIVE walk (subscription_id, next_attempt_at) AS (
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
visited AS (
    SELECT subscription_id, next_attempt_at FROM walk LIMIT %(length)s
),
due AS (
    SELECT s.id, s.target_url, s.secret, s.retry_schedule, s.timeout_seconds
    FROM visited
    JOIN subscriptions AS s ON s.id = visited.subscription_id
    WHERE visited.next_attempt_at <= statement_timestamp() AND s.status = 'active'
    ORDER BY s.id
    LIMIT %(limit)s
    FOR NO KEY UPDATE OF s SKIP LOCKED
)
SELECT due.*, (SELECT count(*) FROM visited), (SELECT max(subscription_id::text) FROM visited)
FROM (SELECT 1) AS always
LEFT JOIN due ON true
"""

# An expired lease is taken like any due request, and its attempt logged as lost.
TAKE = """
WITH free AS (
    SELECT
        s.id,
        s.timeout_seconds * interval '1 second' + %(margin)s * interval '1 second' AS lease,
        least(%(share)s, s.max_in_flight - (
            SELECT count(*)
            FROM webhook_requests AS leased
            WHERE leased.subscription_id = s.id
                AND leased.lease_token IS NOT NULL
                AND leased.next_attempt_at > statement_timestamp()
        )) AS slots
    FROM unnest(%(subscription_ids)s::uuid[]) AS locked (id)
    JOIN subscriptions AS s USING (id)
),
picked AS (
    SELECT
        r.id, r.subscription_id, r.event_id, r.attempt_count, r.trigger, r.lost_count, free.lease,
        r.next_attempt_at - free.lease AS leased_at,
        r.lease_token IS NOT NULL AS is_lost,
        r.lease_token IS NOT NULL AND r.lost_count + 1 >= %(max_lost)s AS is_poison
    FROM free
    CROSS JOIN LATERAL (
        SELECT id, subscription_id, event_id, attempt_count, trigger, lost_count, lease_token, next_attempt_at
        FROM webhook_requests
        WHERE subscription_id = free.id AND status = 'pending' AND next_attempt_at <= statement_timestamp()
        ORDER BY next_attempt_at
        LIMIT greatest(free.slots, 0)
        FOR UPDATE SKIP LOCKED
    ) AS r
    LIMIT %(limit)s
),
lost AS (
    INSERT INTO delivery_attempts (
        id, request_id, subscription_id, attempt_number, trigger, attempted_at, success, error,
        response_headers, response_body
    )
    SELECT
        gen_random_uuid(), id, subscription_id, attempt_count, trigger, leased_at, false, 'worker_lost',
        '', ''
    FROM picked
    WHERE is_lost
    ON CONFLICT (request_id, attempt_number) DO NOTHING
)
UPDATE webhook_requests AS r
SET
    status = CASE WHEN picked.is_poison THEN 'failed' ELSE 'pending' END,
    error = CASE WHEN picked.is_lost THEN 'worker_lost' ELSE r.error END,
    settled_at = CASE WHEN picked.is_poison THEN statement_timestamp() END,
    next_attempt_at = CASE WHEN NOT picked.is_poison THEN statement_timestamp() + picked.lease END,
    lease_token = CASE WHEN NOT picked.is_poison THEN %(token)s::uuid END,
    attempt_count = r.attempt_count + CASE WHEN picked.is_poison THEN 0 ELSE 1 END,
    lost_count = CASE WHEN picked.is_lost THEN r.lost_count + 1 ELSE r.lost_count END,
    trigger = CASE WHEN picked.is_lost AND r.trigger = 'initial' THEN 'retry' ELSE r.trigger END
FROM picked
LEFT JOIN events ON events.id = picked.event_id
WHERE r.id = picked.id
RETURNING
    r.id, r.subscription_id, r.event_type, coalesce(r.payload, events.payload), r.attempt_count, r.trigger,
    r.failure_count, picked.is_poison, statement_timestamp()
"""

# A stale token changes nothing but leaves its attempt, in place of the one that the next
# claim logged as lost; only a late success still ends a request that waits.
SETTLE = """
WITH outcome AS (
    SELECT *
    FROM unnest(
        %(attempt_ids)s::uuid[], %(request_ids)s::uuid[], %(subscription_ids)s::uuid[],
        %(lease_tokens)s::uuid[], %(attempt_numbers)s::int[], %(triggers)s::text[],
        %(attempted_ats)s::timestamptz[], %(errors)s::text[], %(status_codes)s::int[],
        %(response_mss)s::int[], %(dns_mss)s::int[], %(connect_mss)s::int[], %(tls_mss)s::int[],
        %(first_byte_mss)s::int[], %(response_headers)s::text[], %(response_bodies)s::bytea[],
        %(delays)s::float[]
    ) AS o (
        attempt_id, request_id, subscription_id, lease_token, attempt_number, trigger, attempted_at, error,
        status_code, response_ms, dns_ms, connect_ms, tls_ms, first_byte_ms, response_headers,
        response_body, delay
    )
),
logged AS (
    INSERT INTO delivery_attempts AS a (
        id, request_id, subscription_id, attempt_number, trigger, attempted_at, success, error,
        status_code, response_ms, dns_ms, connect_ms, tls_ms, first_byte_ms, response_headers,
        response_body
    )
    SELECT
        o.attempt_id, o.request_id, o.subscription_id, o.attempt_number, o.trigger, o.attempted_at,
        o.error = '', o.error, o.status_code, o.response_ms, o.dns_ms, o.connect_ms, o.tls_ms,
        o.first_byte_ms, o.response_headers, o.response_body
    FROM outcome AS o
    WHERE EXISTS (SELECT FROM webhook_requests AS r WHERE r.id = o.request_id)
    ON CONFLICT (request_id, attempt_number) DO UPDATE SET
        attempted_at = excluded.attempted_at, success = excluded.success, error = excluded.error,
        status_code = excluded.status_code, response_ms = excluded.response_ms, dns_ms = excluded.dns_ms,
        connect_ms = excluded.connect_ms, tls_ms = excluded.tls_ms,
        first_byte_ms = excluded.first_byte_ms, response_headers = excluded.response_headers,
        response_body = excluded.response_body
    WHERE a.error = 'worker_lost'
)
UPDATE webhook_requests AS r
SET
    status = CASE WHEN o.error = '' THEN 'delivered' WHEN o.delay IS NULL THEN 'failed' ELSE 'pending' END,
    next_attempt_at = CASE WHEN o.error <> '' THEN statement_timestamp() + o.delay * interval '1 second' END,
    settled_at = CASE WHEN o.error = '' OR o.delay IS NULL THEN statement_timestamp() END,
    lease_token = NULL,
    error = o.error,
    failure_count = r.failure_count + CASE WHEN o.error = '' THEN 0 ELSE 1 END,
    lost_count = 0,
    trigger = CASE WHEN r.trigger = 'initial' THEN 'retry' ELSE r.trigger END
FROM outcome AS o
WHERE r.id = o.request_id
    AND r.status = 'pending'
    AND (r.lease_token = o.lease_token OR o.error = '')
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What sending needs of a subscription."""

    id: uuid.UUID
    url: str
    stored_secret: bytes
    retry_schedule: list[int]
    timeout_seconds: int

    @property
    def signing_keys(self) -> list[bytes]:
        """The HMAC keys, newest first. Raises UnreadableSecret if the key ring lacks their key."""
        return [_signing_key(self.stored_secret, self.id)]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedRequest:
    """A request under our lease: what to send, and what settling has to know."""

    id: uuid.UUID
    target: Target
    event_type: str
    payload: bytes
    attempt_number: int
    trigger: str
    failure_count: int
    lease_token: uuid.UUID
    claimed_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """The requests of one claim, and the subscription after which the next one begins."""

    requests: list[ClaimedRequest]
    stopped_after: uuid.UUID


@dataclass(frozen=True, kw_only=True, slots=True)
class Settlement:
    """An attempt to log, and what it means for its request."""

    request: ClaimedRequest
    attempted_at: datetime
    outcome: Outcome
    decision: Decision


def claim(limit: int, *, after: uuid.UUID | None = None) -> Claim:
    """Take up to `limit` due requests under a fresh lease.

    Visits the subscriptions round robin, beginning after `after`, and takes from each no
    more than its free slots. Fewer than `limit` come back when nothing more is due, when
    others are claiming from the rest, or when the share of each subscription was less.
    """
    start = after or _FIRST
    requests: list[ClaimedRequest] = []
    stopped_after = start
    for first, last in ((start, _LAST), (_FIRST, start)):
        position: uuid.UUID | None = first
        while position is not None and position < last and len(requests) < limit:
            with transaction.atomic():
                targets, position = _walk(position, last, limit - len(requests))
                if targets:
                    requests += _take(targets, limit - len(requests))
                    stopped_after = list(targets)[-1]
    return Claim(requests=requests, stopped_after=stopped_after)


def settle(settlements: Sequence[Settlement]) -> None:
    """Log attempts and settle their requests, all in one statement.

    Tried again when it meets another statement that holds the same rows, or a purge that
    removes a request whose lease ran out long ago.
    """
    parameters = _settle_parameters(sorted(settlements, key=lambda settlement: settlement.request.id))
    for remaining in reversed(range(SETTLE_TRIES)):
        try:
            sql.run(SETTLE, parameters)
        except (OperationalError, IntegrityError):
            if remaining == 0:
                raise
        else:
            return


def _walk(after: uuid.UUID, until: uuid.UUID, limit: int) -> tuple[dict[uuid.UUID, Target], uuid.UUID | None]:
    """Lock subscriptions with something due; return them and where to walk on, None at the end."""
    rows = sql.run(WALK, {"after": after, "until": until, "limit": limit, "length": WALK_LENGTH})
    targets = {
        row[0]: Target(id=row[0], url=row[1], stored_secret=row[2], retry_schedule=row[3], timeout_seconds=row[4])
        for row in rows
        if row[0] is not None
    }
    visited, last_visited = rows[0][5], rows[0][6]
    if len(targets) == limit:
        return targets, list(targets)[-1]
    return targets, uuid.UUID(last_visited) if visited == WALK_LENGTH else None


def _take(targets: dict[uuid.UUID, Target], limit: int) -> list[ClaimedRequest]:
    token = uuid.uuid4()
    parameters = {
        "subscription_ids": list(targets),
        "limit": limit,
        "share": -(-limit // len(targets)),
        "margin": settings.LEASE_MARGIN_SECONDS,
        "max_lost": MAX_LOST_IN_A_ROW,
        "token": token,
    }
    return [
        ClaimedRequest(
            id=row[0],
            target=targets[row[1]],
            event_type=row[2],
            payload=row[3],
            attempt_number=row[4],
            trigger=row[5],
            failure_count=row[6],
            lease_token=token,
            claimed_at=row[8],
        )
        for row in sql.run(TAKE, parameters)
        if not row[7]
    ]


def _settle_parameters(settlements: Sequence[Settlement]) -> dict[str, list[object]]:
    requests = [settlement.request for settlement in settlements]
    outcomes = [settlement.outcome for settlement in settlements]
    return {
        "attempt_ids": [uuid.uuid4() for _ in settlements],
        "request_ids": [request.id for request in requests],
        "subscription_ids": [request.target.id for request in requests],
        "lease_tokens": [request.lease_token for request in requests],
        "attempt_numbers": [request.attempt_number for request in requests],
        "triggers": [request.trigger for request in requests],
        "attempted_ats": [settlement.attempted_at for settlement in settlements],
        "errors": [str(outcome.error or "") for outcome in outcomes],
        "status_codes": [outcome.status_code for outcome in outcomes],
        "response_mss": [outcome.response_ms for outcome in outcomes],
        "dns_mss": [outcome.dns_ms for outcome in outcomes],
        "connect_mss": [outcome.connect_ms for outcome in outcomes],
        "tls_mss": [outcome.tls_ms for outcome in outcomes],
        "first_byte_mss": [outcome.first_byte_ms for outcome in outcomes],
        "response_headers": [outcome.response_headers for outcome in outcomes],
        "response_bodies": [outcome.response_body for outcome in outcomes],
        "delays": [settlement.decision.delay_seconds for settlement in settlements],
    }


@lru_cache(maxsize=10_000)
def _signing_key(stored_secret: bytes, subscription_id: uuid.UUID) -> bytes:
    return signing.key_of(secrets.decrypt(stored_secret, row_id=subscription_id))
