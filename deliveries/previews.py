"""Would an event be delivered, and if not, why not? Stores nothing."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import models

from deliveries import publishing
from deliveries.publishing import NewEvent, document_of
from subscriptions import filters
from subscriptions.models import Circuit, Subscription


class Result(models.TextChoices):
    """What would become of an event at one subscription."""

    DELIVER = "deliver"
    HOLD = "hold"  # delivered as soon as the reason is gone
    SKIP = "skip"  # stored as skipped, so that it can be recovered
    IGNORE = "ignore"  # nothing is stored


class Reason(models.TextChoices):
    """Why an event would not be delivered at once."""

    EVENT_TYPE = "event_type"
    FILTER = "filter"
    DISABLED = "disabled"
    PAUSED = "paused"
    CIRCUIT_OPEN = "circuit_open"
    ORDERED = "ordered"
    RATE_LIMITED = "rate_limited"


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What would become of an event at one subscription, and why; `clause` is a pointer into its filter."""

    subscription_id: uuid.UUID
    result: Result
    reason: Reason | None = None
    clause: str | None = None
    detail: str


def forecasts(event: NewEvent) -> Iterator[Forecast]:
    """Yield what would become of the event at each subscription of its tenant, newest first."""
    document = document_of(event)
    until = time.monotonic() + publishing.FILTER_SECONDS
    for subscription in Subscription.objects.existing().filter(tenant=event.tenant).order_by("-id").iterator():
        if subscription.filter and time.monotonic() > until:
            raise publishing.too_slow()
        yield _forecast(subscription, event, document)


def _forecast(subscription: Subscription, event: NewEvent, document: dict[str, Any]) -> Forecast:
    if not subscription.accepts(event.event_type):
        taken = ", ".join(subscription.event_types)
        detail = f"It takes {taken}, and not {event.event_type}."
        return Forecast(
            subscription_id=subscription.id, result=Result.IGNORE, reason=Reason.EVENT_TYPE, detail=detail
        )
    if (unmet := filters.explain(subscription.filter, document)) is not None:
        return Forecast(
            subscription_id=subscription.id,
            result=Result.IGNORE,
            reason=Reason.FILTER,
            clause=unmet.pointer,
            detail=unmet.detail,
        )
    if subscription.is_disabled:
        why = f": {subscription.status_reason}" if subscription.status_reason else ""
        return Forecast(
            subscription_id=subscription.id,
            result=Result.SKIP,
            reason=Reason.DISABLED,
            detail=f"It is disabled{why}.",
        )
    reason = _reason_to_hold(subscription)
    if reason is None:
        return Forecast(subscription_id=subscription.id, result=Result.DELIVER, detail="It would be delivered.")
    return Forecast(subscription_id=subscription.id, result=Result.HOLD, reason=reason, detail=HELD[reason])


HELD = {
    Reason.PAUSED: "It is paused, and would be delivered once it is resumed.",
    Reason.CIRCUIT_OPEN: "Its circuit is open, and it would be delivered once that closes.",
    Reason.ORDERED: "It is delivered in order, and an earlier request waits for its retry.",
    Reason.RATE_LIMITED: "Its rate limit is used up for the moment.",
}


def _reason_to_hold(subscription: Subscription) -> Reason | None:
    if subscription.status == Subscription.Status.PAUSED:
        return Reason.PAUSED
    if subscription.circuit == Circuit.OPEN:
        return Reason.CIRCUIT_OPEN
    if subscription.ordered and subscription.is_blocked_now:
        return Reason.ORDERED
    return Reason.RATE_LIMITED if subscription.is_rate_limited_now else None
