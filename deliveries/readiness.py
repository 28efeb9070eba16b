"""Is the service ready? One line per part, from outside as from inside."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import Error, connection
from django.http import HttpRequest, HttpResponse

from deliveries import queue, sql, walks
from deliveries.eligibility import IS_UNHELD
from deliveries.models import Heartbeat
from subscriptions import problems

# A process that has not been heard of for this long counts as dead: three beats missed.
STALE_AFTER = timedelta(seconds=20)
ANSWER_SECONDS = 2.0

# What a statement of an action of the console may take.
ACTION_SECONDS = 20.0

OK = "ok"

# The earliest due time of those that nothing holds, by the same walk as the claim's, and as
# far as one goes.
OLDEST_DUE = f"""
WITH RECURSIVE {walks.VISITED}
SELECT max(extract(epoch FROM statement_timestamp() - visited.next_attempt_at))::float
FROM visited
JOIN subscriptions AS s ON s.id = visited.subscription_id
WHERE visited.next_attempt_at <= statement_timestamp() AND s.circuit_opened_at IS NULL AND {IS_UNHELD}
"""  # noqa: S608 - made of constants  # nosec B608
OLDEST_DUE_OF = {"after": walks.FIRST, "until": walks.LAST, "length": walks.WALK_LENGTH}


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
            oldest = oldest_due_seconds()
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


def oldest_due_seconds() -> float | None:
    """Return how late the oldest request is that may be sent now, None if none is late."""
    seconds: float | None = sql.run(OLDEST_DUE, OLDEST_DUE_OF)[0][0]
    return seconds


class DatabaseDeadlineMiddleware:
    """Answer 503 in place of waiting for a database that hangs.

    Otherwise a few such calls would hold all threads, those of ingest calls included. What
    people do in the console may take longer than what they look at, once it is known who they are.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        may_act = request.path_info.startswith("/admin/") and request.method == "POST"

        def within_deadline(execute: Callable[..., Any], *query: Any) -> Any:
            if sql.has_deadline():  # a longer one, for what stores much
                return execute(*query)
            user = vars(request).get("_cached_user")  # where Django keeps whom it has found by the session
            is_action = may_act and user is not None and user.is_authenticated
            with sql.deadline(ACTION_SECONDS if is_action else ANSWER_SECONDS):
                return execute(*query)

        with connection.execute_wrapper(within_deadline):
            return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer for pages, which know no problem documents of their own."""
        return problems.respond_to(error) if isinstance(error, (*sql.AWAY, problems.Problem)) else None


def _state(kind: str, alive: set[str]) -> str:
    return OK if kind in alive else f"none has been heard of for {STALE_AFTER.seconds} seconds"
