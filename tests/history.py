"""A table full of history, made by the database itself: for plans and for benchmarks.

Of 100 subscriptions every second has one of ten tenants, and one has a tenant of its own. The
requests came in evenly over the past 30 days, so that they fall into every filter of a list:
2 % failed in one of several ways, 0.2 % were canceled, 0.2 % skipped, the newest 0.5 % are
pending, and the rest were delivered. One event type in 10,000 is rare.
"""

import os

from django.db import connection

# `make plans` sets it: so many rows in the place of a few.
ROWS = os.environ.get("LIST_ROWS")

SUBSCRIPTIONS = """
INSERT INTO subscriptions (
    id, tenant, description, metadata, target_url, event_types, secret, secret_hint, headers, ca_certificates,
    retry_schedule, timeout_seconds, max_in_flight, status, status_reason, ordered, rate_times, rate_counts,
    window_calls, window_failures, circuit_trips
)
SELECT
    gen_random_uuid(),
    CASE WHEN n = 1 THEN 'small' WHEN n %% 2 = 0 THEN 'tenant-' || n %% 20 / 2 ELSE '' END,
    '', '{}',
    'http://127.0.0.1:9/', '{}', 'x', 'x', '{}', '', '{1}', 15, 32, 'active', '', n %% 10 = 0, '{}', '{}', 0, 0, 0
FROM generate_series(1, %s) AS n
"""

REQUESTS = """
INSERT INTO webhook_requests (
    id, subscription_id, tenant, event_type, payload, received_at, status, error, attempt_count, settled_at,
    next_attempt_at
)
SELECT
    encode(
        set_bit(set_bit(overlay(
            uuid_send(gen_random_uuid())
            PLACING substring(int8send((extract(epoch FROM made.at) * 1000)::bigint) FROM 3)
            FROM 1 FOR 6
        ), 52, 1), 53, 1),
        'hex'
    )::uuid,
    s.id, s.tenant,
    CASE WHEN n %% 10000 = 77 THEN 'rare.event' ELSE 'event.type' || n %% 20 END,
    convert_to(repeat('x', %(size)s), 'UTF8'), made.at, made.status,
    CASE WHEN made.status <> 'failed' THEN '' ELSE (ARRAY['http_5xx', 'timeout', 'dns'])[1 + n / 50 %% 3] END,
    1,
    CASE WHEN made.status <> 'pending' THEN made.at END,
    CASE WHEN made.status = 'pending' THEN made.at END
FROM generate_series(1, %(count)s) AS n
CROSS JOIN LATERAL (
    SELECT
        statement_timestamp() - interval '30 days' * (%(count)s - n) / %(count)s AS at,
        CASE
            WHEN n > %(count)s * 0.995 THEN 'pending'
            WHEN n %% 50 = 1 THEN 'failed'
            WHEN n %% 500 = 2 THEN 'canceled'
            WHEN n %% 500 = 3 THEN 'skipped'
            ELSE 'delivered'
        END AS status
) AS made
JOIN (SELECT id, tenant, row_number() OVER (ORDER BY id) AS place FROM subscriptions) AS s
    ON s.place = 1 + n / 53 %% %(subscriptions)s
"""

# So many requests that are due for every subscription.
BURST = """
INSERT INTO webhook_requests (
    id, subscription_id, tenant, event_type, payload, received_at, status, error, attempt_count, next_attempt_at
)
SELECT gen_random_uuid(), id, tenant, 'a', 'x', now(), 'pending', '', 0, now()
FROM subscriptions, generate_series(1, %s)
"""


def fill(count: int, *, size: int = 100, subscriptions: int = 100) -> None:
    """Store that many requests, of that many bytes each, and nothing else, and have the planner know of them."""
    with connection.cursor() as cursor:
        # What a transaction stored and took back would take up room, which plans depend on.
        cursor.execute("TRUNCATE webhook_requests, delivery_attempts, events, subscriptions")
        subscribe(subscriptions)
        cursor.execute(REQUESTS, {"count": count, "size": size, "subscriptions": subscriptions})
        cursor.execute("ANALYZE webhook_requests, subscriptions")


def subscribe(count: int) -> None:
    """Store that many subscriptions more."""
    with connection.cursor() as cursor:
        cursor.execute(SUBSCRIPTIONS, [count])


def burst(each: int = 1) -> None:
    """Store so many requests that are due for each subscription, of which the planner is not told."""
    with connection.cursor() as cursor:
        cursor.execute(BURST, [each])
