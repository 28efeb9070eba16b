"""What PostgreSQL and Redis tell about the whole service, for /metrics.

A few statements, each of which reads a part of one index, whose length has a limit: they
cost the same whether there are a thousand requests or many millions.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.models import BooleanField, Count, ExpressionWrapper, F, Q, Sum
from django.db.models.functions import Now

from deliveries import queue, readiness, sql
from deliveries.bulk import Operation
from deliveries.models import Heartbeat
from subscriptions.models import Subscription

# Counting stops there: from then on a count means "so many or more".
MOST_REQUESTS = 20_000
# Of more subscriptions than these, the newest are counted.
MOST_SUBSCRIPTIONS = 50_000

# What a process counted is told for this long after its last beat, so that a scrape still
# comes by the last counts of one that ended.
TOLD_FOR = timedelta(minutes=10)

# Index only scans of requests_leased, requests_pending and requests_by_outcome. What was
# inserted is known without counting.
REQUESTS = """
SELECT
    (
        SELECT count(*)
        FROM (
            SELECT
            FROM webhook_requests
            WHERE lease_token IS NOT NULL AND next_attempt_at > statement_timestamp()
            LIMIT %(most)s
        ) AS leased
    ),
    (SELECT count(*) FROM (SELECT FROM webhook_requests WHERE status = 'pending' LIMIT %(most)s) AS pending),
    (SELECT count(*) FROM (SELECT FROM webhook_requests WHERE status = 'failed' LIMIT %(most)s) AS failed),
    pg_stat_get_tuples_inserted('webhook_requests'::regclass)
"""

SUBSCRIPTIONS = """
SELECT status, count(*), count(circuit_opened_at)
FROM (
    SELECT status, circuit_opened_at, deleted_at
    FROM subscriptions
    ORDER BY id DESC
    LIMIT %(most)s
) AS newest
WHERE deleted_at IS NULL
GROUP BY status
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestFigures:
    in_flight: int
    pending: int
    failed: int
    # Since the statistics of PostgreSQL began.
    inserted: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SubscriptionFigures:
    by_status: dict[str, int]
    with_open_circuit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class OperationFigures:
    """The operations that are not over, and how many requests they have yet to bring back."""

    by_status: dict[str, int]
    remaining: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessFigures:
    """How many processes of each kind live, and by the names of workers what they have counted."""

    by_kind: dict[str, int]
    counts: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    oldest_due_seconds: float
    requests: RequestFigures
    subscriptions: SubscriptionFigures
    operations: OperationFigures
    processes: ProcessFigures
    is_redis_there: bool


def read() -> Figures:
    """Ask Redis and the database, and wait for neither longer than for `GET /ready`."""
    is_redis_there = queue.is_redis_there()
    return sql.again_if_disconnected(
        lambda: Figures(
            oldest_due_seconds=readiness.oldest_due_seconds() or 0.0,
            requests=_requests(),
            subscriptions=_subscriptions(),
            operations=_operations(),
            processes=_processes(),
            is_redis_there=is_redis_there,
        ),
        seconds=readiness.ANSWER_SECONDS,
    )


def _requests() -> RequestFigures:
    with connection.cursor() as cursor:
        cursor.execute(REQUESTS, {"most": MOST_REQUESTS})
        in_flight, pending, failed, inserted = cursor.fetchone()
    return RequestFigures(in_flight=in_flight, pending=pending, failed=failed, inserted=inserted)


def _subscriptions() -> SubscriptionFigures:
    with connection.cursor() as cursor:
        cursor.execute(SUBSCRIPTIONS, {"most": MOST_SUBSCRIPTIONS})
        rows = cursor.fetchall()
    return SubscriptionFigures(
        by_status=dict.fromkeys(Subscription.Status.values, 0) | {status: count for status, count, _ in rows},
        with_open_circuit=sum(open_ for _, _, open_ in rows),
    )


def _operations() -> OperationFigures:
    rows = (
        Operation.objects.active()
        .values("status")
        .annotate(count=Count("id"), remaining=Sum(F("total") - F("done")))
        .order_by("status")
    )
    found = list(rows)
    return OperationFigures(
        by_status=dict.fromkeys(Operation.ACTIVE, 0) | {row["status"]: row["count"] for row in found},
        remaining=sum(row["remaining"] or 0 for row in found),
    )


def _processes() -> ProcessFigures:
    is_fresh = ExpressionWrapper(Q(seen_at__gt=Now() - readiness.STALE_AFTER), output_field=BooleanField())
    beats = Heartbeat.objects.filter(seen_at__gt=Now() - TOLD_FOR).annotate(is_fresh=is_fresh).order_by("name")
    by_kind = dict.fromkeys(Heartbeat.Kind.values, 0)
    counts = {}
    for beat in beats:
        by_kind[beat.kind] += beat.is_fresh
        if beat.counts is not None:
            counts[beat.name] = beat.counts
    return ProcessFigures(by_kind=by_kind, counts=counts)
