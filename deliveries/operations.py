"""What people ask for: replay, cancel and purge."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from deliveries import orphans, queue, sql
from deliveries.bulk import Operation
from deliveries.models import Heartbeat, IdempotencyKey, WebhookRequest, WebhookRequestQuerySet
from subscriptions import audit
from subscriptions.audit import Actor, AuditEntry
from subscriptions.ids import CLOCK_SLACK_MS, lowest_id_at
from subscriptions.lists import within
from subscriptions.models import Subscription
from subscriptions.problems import Problem

# Rows per transaction: short enough that nobody waits for it.
PURGE_BATCH = 1_000
FORGET_AFTER = timedelta(days=1)  # processes not heard of, and idempotency keys
REPLAY_BATCH = 500

Progress = Callable[[int], None]


def no_progress(done: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which requests to replay; what is None does not narrow."""

    ids: Sequence[UUID] | None = None
    subscription_id: UUID | None = None
    tenant: str | None = None
    statuses: Sequence[str] | None = None
    error: str | None = None
    settled_until: datetime | None = None
    received_since: datetime | None = None
    received_until: datetime | None = None
    event_type: str | None = None

    def queryset(self) -> WebhookRequestQuerySet:
        """Return the settled requests of the selection whose subscriptions exist: pending ones need no replay."""
        return self._settled().filter(subscription__deleted_at=None)

    def left_out(self) -> WebhookRequestQuerySet:
        """Return the settled requests of the selection whose subscriptions were deleted: none would be sent."""
        return self._settled().filter(subscription__deleted_at__isnull=False)

    def _settled(self) -> WebhookRequestQuerySet:
        conditions = {
            "id__in": self.ids,
            "subscription_id": self.subscription_id,
            "tenant": self.tenant,
            "status__in": self.statuses,
            "error": self.error,
            "settled_at__lte": self.settled_until,
            "event_type": self.event_type,
        }
        given = {name: value for name, value in conditions.items() if value is not None}
        received = within("received_at", self.received_since, self.received_until)
        return WebhookRequest.objects.settled().filter(received, **given)


def replay(selection: Selection, *, progress: Progress = no_progress, actor: Actor | None = None) -> int:
    """Start a new run of every settled request selected, oldest first; return how many.

    What `actor` does is recorded: each request that was named, or how many of each batch.

    Works in batches and wakes the workers after each, so that a long replay delivers from
    the beginning, and one that is interrupted has done what it had reported.
    """
    replayed = 0
    after = UUID(int=0)
    while True:
        # The walk is by id, so that a request that fails again meanwhile is not met twice.
        batch = list(
            selection.queryset().filter(id__gt=after).order_by("id").values_list("id", flat=True)[:REPLAY_BATCH]
        )
        if not batch:
            return replayed
        with transaction.atomic():
            replayed += WebhookRequest.objects.filter(id__in=batch).replay()
            if actor is not None:
                AuditEntry.objects.bulk_create(_replayed(actor, selection, batch))
        transaction.on_commit(queue.wake_up)
        after = batch[-1]
        progress(replayed)


def _replayed(actor: Actor, selection: Selection, batch: Sequence[UUID]) -> list[AuditEntry]:
    if selection.ids is not None:
        return [audit.entry(actor, "replay", kind="webhook request", object_id=row_id) for row_id in batch]
    given = {name: value for name, value in asdict(selection).items() if value is not None}
    extent = {"requests": len(batch), "first": batch[0], "last": batch[-1]}
    return [audit.entry(actor, "replay", kind="webhook request", after=given | extent)]


def replay_request(request: WebhookRequest) -> bool:
    """Start a new run of one settled request; return whether this call did, and not one before it.

    Raises Problem (409) if its subscription is disabled or deleted: nothing would be sent.
    """
    subscription = Subscription.objects.get(id=request.subscription_id)
    if subscription.deleted_at is not None:
        raise Problem(status=409, code="subscription_deleted", detail="Its subscription was deleted.")
    if subscription.is_disabled:
        detail = "Its subscription is disabled. Enable it first."
        raise Problem(status=409, code="subscription_disabled", detail=detail)
    is_replayed = WebhookRequest.objects.filter(id=request.id).replay() == 1
    if is_replayed:
        transaction.on_commit(queue.wake_up)
    return is_replayed


def cancel_request(request: WebhookRequest, reason: str) -> None:
    """End one pending request and say why. Raises Problem (409) if it is settled."""
    if WebhookRequest.objects.filter(id=request.id).cancel(reason) == 0:
        raise Problem(status=409, code="settled", detail="It is settled: there is nothing left to cancel.")


PURGE = """
WITH old AS (
    SELECT id
    FROM webhook_requests
    WHERE settled_at <= %(until)s AND status = ANY(%(statuses)s)
    ORDER BY settled_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
),
attempts AS (
    DELETE FROM delivery_attempts WHERE request_id IN (SELECT id FROM old)
)
DELETE FROM webhook_requests WHERE id IN (SELECT id FROM old)
RETURNING event_id
"""

# An event goes with the last of its requests, or by its own age if nobody took it.
PURGE_EVENTS = """
WITH old AS MATERIALIZED (
    SELECT id
    FROM events
    WHERE published_at <= %(until)s
        AND id <= %(last_id)s
        AND NOT EXISTS (SELECT FROM webhook_requests AS r WHERE r.event_id = events.id)
    ORDER BY id
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
DELETE FROM events WHERE id IN (SELECT id FROM old)
RETURNING id
"""

SETTLED_STATUSES = tuple(status.value for status in WebhookRequest.Status if status != "pending")


def purge(
    *, older_than_days: float, statuses: Sequence[str] = SETTLED_STATUSES, progress: Progress = no_progress
) -> int:
    """Delete requests settled at least `older_than_days` ago, with their attempts; return how many.

    Pending requests are never deleted. Works in small batches, skips rows that somebody
    holds, and may run beside deliveries, replays and another purge.
    """
    if older_than_days < 0:
        raise ValueError("A negative age would purge what is still to be settled.")
    # The limit is fixed once, by the database's clock: what is settled meanwhile is for the next purge.
    until = sql.run("SELECT statement_timestamp() - %(age)s", {"age": timedelta(days=older_than_days)})[0][0]
    parameters = {"until": until, "limit": PURGE_BATCH}
    purged = 0
    while rows := _purge_batch(parameters | {"statuses": list(statuses)}):
        purged += len(rows)
        progress(purged)
    if set(statuses) == set(SETTLED_STATUSES):
        # Ids sort by the time they were made, so that the walk ends where the young begin.
        events = parameters | {"last_id": lowest_id_at(until, slack_ms=CLOCK_SLACK_MS)}
        while sql.run(PURGE_EVENTS, events):
            progress(purged)
        orphans.purge(until=until)
        Subscription.objects.forget_previous_secrets()
        Operation.objects.filter(finished_at__lte=until).delete()
        Heartbeat.objects.forget(FORGET_AFTER)
        IdempotencyKey.objects.filter(created_at__lte=Now() - FORGET_AFTER).delete()
    return purged


def _purge_batch(parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    try:
        return sql.run(PURGE, parameters)
    except IntegrityError:
        # A worker long past its lease has just logged its attempt for one of these.
        return sql.run(PURGE, parameters)


def count_purgeable(*, older_than_days: float, statuses: Sequence[str] = SETTLED_STATUSES) -> int:
    """Return how many requests `purge` would delete now."""
    age = timedelta(days=older_than_days)
    return WebhookRequest.objects.settled_for(age).filter(status__in=statuses).count()
