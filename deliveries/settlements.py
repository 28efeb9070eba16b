"""Settle what was tried: the statement by which an attempt becomes history.

The attempts are logged, and where the lease is still held the request is delivered, due
again later, or failed. In the same statement the endpoint's health is kept: the circuit
breaker, since when there are nothing but failures, and what an ordered subscription waits
for.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from django.conf import settings
from django.db import IntegrityError, OperationalError

from deliveries import sql
from deliveries.leases import ClaimedRequest
from deliveries.outcome import Outcome
from deliveries.retry import Decision
from subscriptions.models import new_id

SETTLE_TRIES = 3

# A circuit opens when half of at least so many calls within so many seconds failed, is
# probed after so many, doubling each time, up to so many.
WINDOW_CALLS = 10
WINDOW_SECONDS = 300
PROBE_SECONDS = 30
LONGEST_PROBE_SECONDS = 1800

# A stale token changes nothing but leaves its attempt, in place of the one that the next
# claim logged as lost; only a late success still ends a request that waits.
#
# The endpoint's health is kept in the same statement, and only for endpoints that failed
# or have failed before: a healthy one costs nothing here. Their rows are locked in order,
# so that two workers that settle for the same endpoints do not wait for each other.
SETTLE = """
WITH outcome AS MATERIALIZED (
    SELECT *
    FROM unnest(
        %(attempt_ids)b::uuid[], %(request_ids)b::uuid[], %(subscription_ids)b::uuid[],
        %(lease_tokens)b::uuid[], %(attempt_numbers)b::int[], %(triggers)b::text[],
        %(attempted_ats)b::timestamptz[], %(errors)b::text[], %(status_codes)b::int[],
        %(response_mss)b::int[], %(dns_mss)b::int[], %(connect_mss)b::int[], %(tls_mss)b::int[],
        %(first_byte_mss)b::int[], %(response_headers)b::text[], %(response_bodies)b::bytea[],
        %(delays)b::float[], %(failure_reasons)b::text[], %(disable_reasons)b::text[], %(hints)b::text[]
    ) AS o (
        attempt_id, request_id, subscription_id, lease_token, attempt_number, trigger, attempted_at, error,
        status_code, response_ms, dns_ms, connect_ms, tls_ms, first_byte_ms, response_headers,
        response_body, delay, failure_reason, disable_reason, hint
    )
),
logged AS (
    INSERT INTO delivery_attempts AS a (
        id, request_id, subscription_id, attempt_number, trigger, attempted_at, success, error,
        status_code, response_ms, dns_ms, connect_ms, tls_ms, first_byte_ms, response_headers,
        response_body, specific_hint
    )
    SELECT
        o.attempt_id, o.request_id, o.subscription_id, o.attempt_number, o.trigger, o.attempted_at,
        o.error = '', o.error, o.status_code, o.response_ms, o.dns_ms, o.connect_ms, o.tls_ms,
        o.first_byte_ms, o.response_headers, o.response_body, o.hint
    FROM outcome AS o
    WHERE EXISTS (SELECT FROM webhook_requests AS r WHERE r.id = o.request_id)
    ON CONFLICT (request_id, attempt_number) DO UPDATE SET
        attempted_at = excluded.attempted_at, success = excluded.success, error = excluded.error,
        status_code = excluded.status_code, response_ms = excluded.response_ms, dns_ms = excluded.dns_ms,
        connect_ms = excluded.connect_ms, tls_ms = excluded.tls_ms,
        first_byte_ms = excluded.first_byte_ms, response_headers = excluded.response_headers,
        response_body = excluded.response_body, specific_hint = excluded.specific_hint
    WHERE a.error = 'worker_lost'
),
tally AS (
    -- what we could not send ourselves says nothing of the endpoint
    SELECT
        subscription_id,
        count(*) FILTER (WHERE error <> 'internal') AS calls,
        count(*) FILTER (WHERE error NOT IN ('', 'internal')) AS failures,
        max(attempted_at) FILTER (WHERE error = '') AS succeeded_at,
        max(attempted_at) FILTER (WHERE error NOT IN ('', 'internal')) AS failed_at,
        bool_or(error = 'internal') AS has_ours,
        max(disable_reason) AS disable_reason
    FROM outcome
    GROUP BY subscription_id
),
affected AS (
    SELECT
        s.id,
        coalesce(
            tally.disable_reason,
            CASE
                WHEN s.status <> 'disabled' AND tally.failures > 0 AND tally.failures = tally.calls
                    AND s.failing_since <= statement_timestamp() - %(disable_after)s * interval '1 second'
                THEN 'Nothing but failures since '
                    || to_char(s.failing_since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC.'
            END
        ) AS disable_reason
    FROM tally
    JOIN subscriptions AS s ON s.id = tally.subscription_id
    WHERE tally.failures > 0 OR tally.disable_reason IS NOT NULL
        OR (s.ordered AND (tally.has_ours OR s.blocked_until IS NOT NULL))
        OR s.failing_since IS NOT NULL OR s.window_failures > 0 OR s.circuit_opened_at IS NOT NULL
    ORDER BY s.id
    FOR NO KEY UPDATE OF s
),
settled AS (
    UPDATE webhook_requests AS r
    SET
        status = CASE WHEN o.error = '' THEN 'delivered' WHEN o.delay IS NULL THEN 'failed' ELSE 'pending' END,
        next_attempt_at = CASE
            WHEN o.error = '' OR o.delay IS NULL THEN NULL
            -- It keeps its place at the head, and its subscription is blocked instead.
            WHEN s.ordered AND (r.failure_count + 1 >= %(skip_after)s::int) IS NOT TRUE THEN r.received_at
            ELSE statement_timestamp() + o.delay * interval '1 second'
        END,
        settled_at = CASE WHEN o.error = '' OR o.delay IS NULL THEN statement_timestamp() END,
        status_reason = coalesce(o.failure_reason, r.status_reason),
        lease_token = NULL,
        error = o.error,
        failure_count = r.failure_count + CASE WHEN o.error = '' THEN 0 ELSE 1 END,
        lost_count = 0,
        trigger = CASE
            WHEN r.trigger = 'initial' AND o.error <> '' AND o.delay IS NOT NULL THEN 'retry'
            ELSE r.trigger
        END
    FROM outcome AS o
    JOIN subscriptions AS s ON s.id = o.subscription_id
    WHERE r.id = o.request_id
        -- in a CASE for the same reason as in the claim
        AND CASE WHEN r.status = 'pending' THEN r.lease_token = o.lease_token OR o.error = '' END
    RETURNING r.subscription_id, s.ordered AND r.next_attempt_at = r.received_at AS blocks, o.delay
)
UPDATE subscriptions AS s
SET
    (window_started_at, window_calls, window_failures, circuit_opened_at, circuit_probe_at, circuit_trips) = (
        SELECT
            CASE WHEN NOT now.closes THEN now.window_started_at END,
            CASE WHEN now.closes THEN 0 ELSE now.calls END,
            CASE WHEN now.closes THEN 0 ELSE now.failures END,
            CASE
                WHEN now.closes THEN NULL
                WHEN now.trips THEN statement_timestamp()
                ELSE s.circuit_opened_at
            END,
            CASE
                WHEN now.closes THEN NULL
                WHEN now.trips OR now.probe_failed THEN statement_timestamp() + interval '1 second'
                    * least(%(probe_seconds)s * 2 ^ least(s.circuit_trips, 20), %(longest_probe_seconds)s)
                ELSE s.circuit_probe_at
            END,
            CASE
                WHEN now.closes THEN 0
                WHEN now.trips OR now.probe_failed THEN s.circuit_trips + 1
                ELSE s.circuit_trips
            END
        FROM (
            SELECT
                count.*,
                -- only a call that went out as a probe tells; others were on their way when it opened
                coalesce(tally.succeeded_at >= s.circuit_probe_at, false) AS closes,
                s.circuit_opened_at IS NULL AND tally.failures > 0
                    AND count.calls >= %(window_calls)s AND count.failures * 2 >= count.calls AS trips,
                coalesce(tally.failed_at >= s.circuit_probe_at AND tally.succeeded_at IS NULL, false)
                    AS probe_failed
            FROM (
                SELECT
                    CASE WHEN is_open THEN s.window_started_at ELSE statement_timestamp() END AS window_started_at,
                    CASE WHEN is_open THEN s.window_calls ELSE 0 END + tally.calls AS calls,
                    CASE WHEN is_open THEN s.window_failures ELSE 0 END + tally.failures AS failures
                FROM (
                    SELECT s.window_started_at IS NOT NULL AND s.window_started_at > statement_timestamp()
                        - %(window_seconds)s * interval '1 second' AS is_open
                ) AS window_
            ) AS count
        ) AS now
    ),
    failing_since = CASE
        WHEN tally.failures < tally.calls THEN NULL
        WHEN tally.failures > 0 THEN coalesce(s.failing_since, statement_timestamp())
        ELSE s.failing_since
    END,
    blocked_until = CASE
        WHEN EXISTS (SELECT FROM settled WHERE settled.subscription_id = s.id) THEN (
            SELECT statement_timestamp() + max(settled.delay) * interval '1 second'
            FROM settled
            WHERE settled.subscription_id = s.id AND settled.blocks
        )
        ELSE s.blocked_until
    END,
    status = CASE WHEN affected.disable_reason IS NULL THEN s.status ELSE 'disabled' END,
    status_reason = coalesce(affected.disable_reason, s.status_reason),
    given_up_at = CASE
        WHEN affected.disable_reason IS NOT NULL AND s.status <> 'disabled' THEN statement_timestamp()
        ELSE s.given_up_at
    END
FROM affected
JOIN tally ON tally.subscription_id = affected.id
WHERE s.id = affected.id
"""


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt to log, and what it means for its request."""

    request: ClaimedRequest
    attempted_at: datetime
    outcome: Outcome
    decision: Decision


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


def _settle_parameters(settlements: Sequence[Settlement]) -> dict[str, object]:
    requests = [settlement.request for settlement in settlements]
    outcomes = [settlement.outcome for settlement in settlements]
    return {
        "attempt_ids": [new_id() for _ in settlements],
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
        "delays": [_as_float(settlement.decision.delay_seconds) for settlement in settlements],
        "failure_reasons": [settlement.decision.failure_reason for settlement in settlements],
        "disable_reasons": [settlement.decision.disable_reason for settlement in settlements],
        "hints": [outcome.hint or "" for outcome in outcomes],
        "skip_after": settings.ORDERED_SKIP_AFTER,
        "disable_after": settings.DISABLE_AFTER_SECONDS,
        "probe_seconds": PROBE_SECONDS,
        "longest_probe_seconds": LONGEST_PROBE_SECONDS,
        "window_calls": WINDOW_CALLS,
        "window_seconds": WINDOW_SECONDS,
    }


def _as_float(seconds: float | None) -> float | None:
    """Return whole seconds as a float too: of a list with both psycopg sends nothing."""
    return None if seconds is None else float(seconds)
