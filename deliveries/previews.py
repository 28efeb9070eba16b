"""Would an event be delivered, and if not, why not? Stores nothing."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import models

from deliveries import publishing
from deliveries.publishing import NewEvent, document_of
from subscriptions import event_types, filters
from subscriptions.lists import MAX_BYTES
from subscriptions.models import Circuit, Subscription
from subscriptions.problems import Problem

# Of the event types that a subscription takes, which may be 250, so many are told.
TYPES_TOLD = 5

# What a forecast has besides its texts, in bytes of JSON, roughly.
FORECAST_BYTES = 150

# Subscriptions read at a time, and what of them is not: the largest have 40 KB without it.
ROWS_AT_ONCE = 100
UNREAD = ("metadata", "headers", "secret_headers", "auth", "ca_certificates")


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
    """Yield what would become of the event at each subscription of its tenant, newest first.

    Raises Problem: 413 if there are more than MAX_BYTES to tell, 422 if the filters take too long.
    """
    document = document_of(event)
    until, size = time.monotonic() + publishing.FILTER_SECONDS, 0
    for subscription in _subscriptions_of(event.tenant):
        if subscription.filter and time.monotonic() > until:
            raise publishing.too_slow()
        forecast = _forecast(subscription, event, document)
        size += FORECAST_BYTES + len(forecast.detail) + len(forecast.clause or "")
        if size > MAX_BYTES:
            detail = "There is too much to say of so many subscriptions: the answer would have more than 4 MB."
            raise Problem(status=413, code="too_large", detail=detail)
        yield forecast


def _subscriptions_of(tenant: str) -> Iterator[Subscription]:
    """Yield a tenant's subscriptions, newest first.

    Not by a cursor, whose later rows would be waited for without a limit.
    """
    subscriptions = Subscription.objects.existing().filter(tenant=tenant).defer(*UNREAD).order_by("-id")
    part = list(subscriptions[:ROWS_AT_ONCE])
    yield from part
    while len(part) == ROWS_AT_ONCE:
        part = list(subscriptions.filter(id__lt=part[-1].id)[:ROWS_AT_ONCE])
        yield from part


def _forecast(subscription: Subscription, event: NewEvent, document: dict[str, Any]) -> Forecast:
    if not subscription.accepts(event.event_type):
        taken = event_types.in_words(subscription.event_types, most=TYPES_TOLD)
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
