"""Start operations, and run them: batch after batch, at a pace that leaves fresh events their way.

A batch is one transaction, which moves its requests and the place where the operation has
come to. So whoever runs it may be killed at any moment, and the next one goes on from there.

Two things keep an operation from holding up what comes in meanwhile. All operations together
bring back OPERATION_RATE requests a second. And of one subscription there are never more of
them due and untried than it makes calls at once, by its max_in_flight and its rate limit: an
event that comes in then is behind one round of calls at most, however slow its receiver is,
or if it is ordered behind as many calls one after the other. While the subscription is
paused or its circuit open the operation waits.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any
from uuid import UUID

import psycopg.errors
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, F
from django.db.models.functions import Now

from deliveries import queue, sql
from deliveries.bulk import Operation, OperationPart
from deliveries.models import WebhookRequest, WebhookRequestQuerySet
from deliveries.operations import Selection
from subscriptions.models import Subscription

logger = logging.getLogger(__name__)

# Between two batches of an operation, and after one in which there was room for nothing.
INTERVAL_SECONDS = 0.25
WAIT_SECONDS = 1.0

# Subscriptions looked at by one batch.
MOST_PARTS = 200

# Counting is given up after this: it holds the operation's row, and there is no sign of life of
# the maintenance meanwhile (see STALE_AFTER in deliveries/readiness.py).
COUNT_TIMEOUT_MS = 15_000
TOO_SLOW = "Counting the requests took too long. Narrow the filters."

# What is not said otherwise is brought back if it never arrived, and nobody decided so.
USUAL_STATUSES = ("failed", "skipped")

# How many requests each open part may bring back now: null means that its subscription takes
# no more. Those that wait for a retry are not due and do not count.
ROOM = """
SELECT
    p.id,
    p.subscription_id,
    p.position,
    CASE WHEN s.status <> 'disabled' THEN
        capacity.calls - (
            SELECT count(*)
            FROM (
                SELECT
                FROM webhook_requests AS r
                WHERE r.subscription_id = s.id
                    AND r.status = 'pending'
                    AND r.trigger = 'replay'
                    AND r.next_attempt_at <= statement_timestamp()
                LIMIT capacity.calls
            ) AS waiting
        )
    END AS room
FROM operation_parts AS p
LEFT JOIN subscriptions AS s ON s.id = p.subscription_id
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN s.rate_limit IS NULL THEN s.max_in_flight
        ELSE least(s.max_in_flight, greatest(1, floor(s.rate_limit)))
    END::bigint AS calls
) AS capacity
WHERE p.operation_id = %(operation_id)s AND NOT p.is_finished
ORDER BY p.visited_at NULLS FIRST, p.id
LIMIT %(limit)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Room:
    """An open part of an operation, and how many requests it may bring back now."""

    part_id: int
    subscription_id: UUID
    position: UUID | None
    room: int | None


def selected(selection: Mapping[str, Any], settled_until: datetime | None = None) -> WebhookRequestQuerySet:
    """Return the requests that a stored selection is about, but those that nobody would be sent."""
    moments = {
        name: datetime.fromisoformat(selection[name]) if name in selection else None
        for name in ("received_after", "received_before")
    }
    chosen = Selection(
        subscription_id=UUID(selection["subscription"]) if "subscription" in selection else None,
        tenant=selection.get("tenant"),
        statuses=selection.get("status", USUAL_STATUSES),
        event_type=selection.get("event_type"),
        error=selection.get("error"),
        received_since=moments["received_after"],
        received_until=moments["received_before"],
        settled_until=settled_until,
    )
    return chosen.queryset().exclude(subscription__status=Subscription.Status.DISABLED)


def start(kind: str, selection: Mapping[str, Any], *, tenant: str | None, requested_by: str) -> Operation:
    """Store an operation and have it begun at once; return it."""
    operation = Operation.objects.create(
        kind=kind, selection=dict(selection), tenant=tenant, requested_by=requested_by[:255]
    )
    transaction.on_commit(queue.wake_maintenance)
    operation.refresh_from_db()
    return operation


def step() -> float | None:
    """Do one batch of the operation whose turn it is; return after how many seconds the next is due.

    None means that no operation is left. One that somebody else is at is left to them.
    """
    with transaction.atomic():
        due = Operation.objects.active().filter(next_batch_at__lte=Now()).order_by("next_batch_at")
        operation = due.select_for_update(skip_locked=True).first()
        if operation is not None:
            _advance(operation)
            return 0.0
    return INTERVAL_SECONDS if Operation.objects.active().exists() else None


def _advance(operation: Operation) -> None:
    try:
        with transaction.atomic():
            if operation.status == Operation.Status.PENDING:
                _begin(operation)
            else:
                _run_batch(operation)
    except sql.AWAY as error:
        is_counting = operation.status == Operation.Status.PENDING
        if not (is_counting and isinstance(error.__cause__, psycopg.errors.QueryCanceled)):
            raise
        operation.end(Operation.Status.FAILED, TOO_SLOW)
    except queue.JobTimeoutException:
        raise  # the time of the task is over, not that of the operation: it goes on with the next tick
    except Exception:
        # The boundary around one operation, whose selection anybody may have written: it would be
        # the first in turn for ever, and one that can never be done, for whatever reason, must not
        # stop the others. A database that is away was raised above.
        logger.exception("an operation failed", extra={"operation_id": str(operation.id)})
        operation.end(Operation.Status.FAILED, "The service made a mistake. It has been logged.")


def _begin(operation: Operation) -> None:
    """Count what is selected, and by that find out the subscriptions it is for."""
    requests = selected(operation.selection, operation.created_at)
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(COUNT_TIMEOUT_MS)])
    counts = list(requests.order_by().values_list("subscription_id").annotate(Count("id")))
    OperationPart.objects.bulk_create(
        [OperationPart(operation=operation, subscription_id=subscription_id) for subscription_id, _ in counts],
        batch_size=1_000,
    )
    Operation.objects.filter(id=operation.id).update(
        status=Operation.Status.RUNNING, total=sum(count for _, count in counts), started_at=Now()
    )


def _run_batch(operation: Operation) -> None:
    rooms = _rooms(operation)
    if not rooms:
        operation.end(Operation.Status.DONE)
        return
    open_rooms = [each for each in rooms if each.room is not None and each.room > 0]
    limit = _batch_size()
    share = max(1, limit // max(1, len(open_rooms)))
    chosen: dict[int, list[UUID]] = {}
    for each in open_rooms[:limit]:
        requests = selected(operation.selection, operation.created_at).filter(subscription_id=each.subscription_id)
        if each.position is not None:
            requests = requests.filter(id__gt=each.position)
        chosen[each.part_id] = list(requests.order_by("id").values_list("id", flat=True)[: _wanted(each, share)])
    replayed = WebhookRequest.objects.filter(id__in=[*chain.from_iterable(chosen.values())]).replay()
    _note_progress(rooms, chosen, share)
    pause = timedelta(seconds=INTERVAL_SECONDS if chosen else WAIT_SECONDS)
    Operation.objects.filter(id=operation.id).update(done=F("done") + replayed, next_batch_at=Now() + pause)
    if replayed:
        transaction.on_commit(queue.wake_up)


def _rooms(operation: Operation) -> list[_Room]:
    rows = sql.run(ROOM, {"operation_id": operation.id, "limit": MOST_PARTS})
    names = ("part_id", "subscription_id", "position", "room")
    return [_Room(**dict(zip(names, row, strict=True))) for row in rows]


def _batch_size() -> int:
    """Return one operation's share of what all may bring back in an interval that have a batch in it."""
    interval = timedelta(seconds=INTERVAL_SECONDS)
    sharing = max(1, Operation.objects.active().filter(next_batch_at__lte=Now() + interval).count())
    rate: int = settings.OPERATION_RATE
    return max(1, round(rate * INTERVAL_SECONDS / sharing))


def _wanted(each: _Room, share: int) -> int:
    return min(each.room or 0, share)


def _note_progress(rooms: list[_Room], chosen: Mapping[int, list[UUID]], share: int) -> None:
    """Store how far each part has come; one that had less than it might is finished."""
    for each in rooms:
        ids = chosen.get(each.part_id)
        if ids is None and each.room is not None and each.room > 0:
            continue  # its turn comes first with the next batch
        is_finished = each.room is None or (ids is not None and len(ids) < _wanted(each, share))
        OperationPart.objects.filter(id=each.part_id).update(
            position=ids[-1] if ids else each.position, visited_at=Now(), is_finished=is_finished
        )
