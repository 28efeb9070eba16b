"""The walk: find the subscriptions that have something due which may be tried, and lock them."""

import uuid
from dataclasses import dataclass
from datetime import datetime

from deliveries import sql
from deliveries.eligibility import (
    CALLS_IN_RATE_WINDOW,
    CUSTOMER,
    FREE_SLOTS,
    MAY_BE_TRIED,
    RATE_CALLS,
    RATE_WINDOW,
)
from deliveries.leases import Target

# Subscriptions looked at per walk; see MOST_WALKS in deliveries/claims.py.
WALK_LENGTH = 1_000

# A worker that falls silent in a claim holds its subscriptions for so many seconds: no longer than
# one whose connection fell silent goes on with it (DATABASE_SECONDS in deliveries/dispatcher.py).
SILENT_SECONDS = 3

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
FROM (SELECT set_config('idle_in_transaction_session_timeout', '{SILENT_SECONDS}s', true)) AS always
LEFT JOIN locked ON true
"""  # noqa: S608 - made of constants  # nosec B608


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """The locked subscriptions of one walk, the rest of its stretch if any, and the database's time."""

    targets: dict[uuid.UUID, Target]
    rest: list[Stretch]
    rate_held_seconds: float | None
    at: datetime


def stretches(after: uuid.UUID, until: uuid.UUID) -> list[Stretch]:
    """Return the stretches of subscriptions after `after` up to `until`, round the end if need be."""
    if after < until:
        return [(after, until)]
    return [(after, LAST)] if until == FIRST else [(after, LAST), (FIRST, until)]


def walk(after: uuid.UUID, until: uuid.UUID, limit: int, *, satisfied: list[str]) -> Walk:
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
    return Walk(targets=targets, rest=rest, rate_held_seconds=rate_held_seconds, at=at)
