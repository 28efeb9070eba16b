"""How long one claim of 500 takes where it matters: run by the benchmark, on its own database."""

from datetime import timedelta

from django.db import connection
from django.utils import timezone

from tests.benchmarks.claiming import claim_times

# After the import of the apps, which comes with claim_times.
from subscriptions.models import Subscription  # isort: skip

# As they come in: one request of each subscription after the other, over the last hour, with
# ids in the order of their receipt (`uuidv7` is PostgreSQL 18's). Of three subscriptions one
# waits for a retry.
REQUESTS = """
INSERT INTO webhook_requests (id, subscription_id, event_type, payload, next_attempt_at)
SELECT
    uuidv7(), s.id, 'a', convert_to(repeat('x', 100), 'UTF8'),
    now() + interval '1 hour' * CASE WHEN s.n %% 3 = 1 THEN 1 ELSE (round - %(rounds)s)::float / %(rounds)s END
FROM generate_series(1, %(rounds)s) AS round
CROSS JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n FROM subscriptions) AS s
ORDER BY round
"""

# The first subscription in order, with one call at a time, gets a queue of a million.
GIANT = """
WITH giant AS (
    UPDATE subscriptions
    SET max_in_flight = 1, circuit_opened_at = NULL
    WHERE id = (SELECT id FROM subscriptions ORDER BY id LIMIT 1)
    RETURNING id
)
INSERT INTO webhook_requests (id, subscription_id, event_type, payload)
SELECT gen_random_uuid(), giant.id, 'a', 'x' FROM giant, generate_series(1, 1000000)
"""


def main() -> None:
    fill(10_000, 100)
    show("1,000,000 pending over 10,000 subscriptions, half of them held or waiting", claim_times(20))
    fill(100, 100)
    show("10,000 pending over 100 subscriptions", claim_times(5))
    fill(100, 100)
    with connection.cursor() as cursor:
        cursor.execute(GIANT)
        cursor.execute("VACUUM ANALYZE webhook_requests")
    show("the same, beside one subscription with 1,000,000 due", claim_times(5))


def fill(subscriptions: int, requests_each: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE delivery_attempts, webhook_requests, events, subscriptions")
        Subscription.objects.bulk_create([subscription(number) for number in range(subscriptions)])
        cursor.execute(REQUESTS, {"rounds": requests_each})
        cursor.execute("VACUUM ANALYZE webhook_requests, subscriptions")


def subscription(number: int) -> Subscription:
    """Make a subscription, unsaved; of four one has its circuit open."""
    opened_at = timezone.now() if number % 4 == 0 else None
    return Subscription(
        target_url="http://127.0.0.1:9/",
        secret=b"x",
        circuit_opened_at=opened_at,
        circuit_probe_at=opened_at and opened_at + timedelta(hours=1),
    )


def show(shape: str, figure: str) -> None:
    print(f"claim           {shape}: {figure}")


if __name__ == "__main__":
    main()
