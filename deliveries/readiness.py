"""Is the service ready? One line per part, from outside as from inside."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import Error, connection
from django.http import HttpRequest, HttpResponse

from deliveries import queue, sql
from deliveries.models import Heartbeat

# A process that has not been heard of for this long counts as dead: three beats missed.
STALE_AFTER = timedelta(seconds=20)
ANSWER_SECONDS = 2.0

OK = "ok"

# The earliest due time of each subscription that may be tried, by the same walk as the claim.
OLDEST_DUE = """
WITH RECURSIVE walk (subscription_id, next_attempt_at) AS (
    (
        SELECT subscription_id, next_attempt_at FROM webhook_requests
        WHERE status = 'pending' ORDER BY subscription_id, next_attempt_at LIMIT 1
    )
    UNION ALL
    SELECT following.subscription_id, following.next_attempt_at
    FROM walk
    CROSS JOIN LATERAL (
        SELECT subscription_id, next_attempt_at FROM webhook_requests
        WHERE status = 'pending' AND subscription_id > walk.subscription_id
        ORDER BY subscription_id, next_attempt_at LIMIT 1
    ) AS following
)
SELECT max(extract(epoch FROM statement_timestamp() - visited.next_attempt_at))::float
FROM (SELECT * FROM walk LIMIT 1000) AS visited
JOIN subscriptions AS s ON s.id = visited.subscription_id
WHERE visited.next_attempt_at <= statement_timestamp()
    AND s.status = 'active' AND s.circuit_opened_at IS NULL
    AND (s.blocked_until IS NULL OR s.blocked_until <= statement_timestamp())
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Readiness:
    """How each part is: "ok" or what is wrong; the age of the oldest due request, in seconds."""

    database: str
    redis: str
    workers: str
    maintenance: str
    scheduler: str
    oldest_due_seconds: float | None

    @property
    def is_ready(self) -> bool:
        return {self.database, self.redis, self.workers, self.maintenance, self.scheduler} == {OK}


def check() -> Readiness:
    """Ask every part, and wait for none of them longer than two seconds."""
    redis = OK if queue.is_redis_there() else "does not answer"
    try:
        with sql.deadline(ANSWER_SECONDS):
            kinds = Heartbeat.objects.fresh_kinds(STALE_AFTER)
            oldest = sql.run(OLDEST_DUE, {})[0][0]
    except Error:
        connection.close()
        unknown = "unknown: the database does not answer"
        return Readiness(
            database="does not answer",
            redis=redis,
            workers=unknown,
            maintenance=unknown,
            scheduler=unknown,
            oldest_due_seconds=None,
        )
    return Readiness(
        database=OK,
        redis=redis,
        workers=_state(Heartbeat.Kind.WORKER, kinds),
        maintenance=_state(Heartbeat.Kind.MAINTENANCE, kinds),
        scheduler=_state(Heartbeat.Kind.SCHEDULER, kinds),
        oldest_due_seconds=None if oldest is None else round(oldest, 3),
    )


class DatabaseDeadlineMiddleware:
    """Answer 503 in place of waiting for a database that hangs, on every path but the admin's.

    Otherwise a few such calls would hold all threads, those of ingest calls included.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith("/admin/"):
            return self.get_response(request)
        with connection.execute_wrapper(_within_deadline):
            return self.get_response(request)


def _within_deadline(execute: Callable[..., Any], *query: Any) -> Any:
    with sql.deadline(ANSWER_SECONDS):
        return execute(*query)


def _state(kind: str, alive: set[str]) -> str:
    return OK if kind in alive else f"none has been heard of for {STALE_AFTER.seconds} seconds"
