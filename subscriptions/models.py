"""Who wants what, where: subscriptions."""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self
from uuid import UUID

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from subscriptions import addresses, cache, event_types
from subscriptions.api_keys import ApiKey as ApiKey
from subscriptions.audit import AuditEntry as AuditEntry
from subscriptions.catalog import EventType as EventType
from subscriptions.credentials import Credentials
from subscriptions.ids import new_id as new_id
from subscriptions.validation import validate_event_type_pattern as validate_event_type_pattern
from subscriptions.validation import validate_metadata as validate_metadata
from subscriptions.validation import validate_secret as validate_secret
from subscriptions.validation import validate_target_url as validate_target_url
from subscriptions.visible import visible

MAX_EVENT_TYPES = 250
MAX_RETRIES = 20
LONGEST_RETRY_DELAY_SECONDS = 7 * 24 * 3600
LONGEST_CALL_TIMEOUT_SECONDS = 60

# Calls per second: one in ten minutes is the slowest that can be asked for.
SLOWEST_RATE = 1 / 600
FASTEST_RATE = 10_000.0

# What it is called in the console. Of messages that are too long for a cookie Django drops the first, which may
# tell a new secret.
LONGEST_NAME = 255


def default_retry_schedule() -> list[int]:
    return list(settings.RETRY_SCHEDULE)


def default_timeout() -> int:
    return int(settings.CALL_TIMEOUT_SECONDS)


def default_max_in_flight() -> int:
    return int(settings.MAX_IN_FLIGHT)


class Circuit(models.TextChoices):
    """The circuit breaker of a subscription: closed lets calls through, half-open lets one."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class SubscriptionQuerySet(models.QuerySet["Subscription"]):
    def for_tenant(self, tenant: str | None) -> Self:
        """Limit to one tenant's subscriptions; None, an operator's view, means all of them."""
        return self if tenant is None else self.filter(tenant=tenant)

    def taking(self, event_type: str) -> Self:
        """Limit to those whose event types take this one, whatever their filters say."""
        takes = models.Q(event_types=[]) | models.Q(event_types__overlap=event_types.patterns_taking(event_type))
        return self.filter(takes)

    def matching(self, text: str) -> Self:
        """Limit to those with `text` in their description or target URL, in any case."""
        return self.filter(models.Q(description__icontains=text) | models.Q(target_url__icontains=text))

    def existing(self) -> Self:
        """Leave out the deleted ones, whose rows stay for the sake of their history."""
        return self.filter(deleted_at=None)

    def cached(self, subscription_id: UUID, *, tenant: str | None = None) -> "Subscription":
        """Return a subscription that is at most two seconds old, without a query if possible.

        Treat it as read-only: other threads hold the same object. Raises
        Subscription.DoesNotExist, which is never cached: one of another tenant than `tenant`
        is asked for as one that never was, so that not even the time tells them apart.
        """
        subscription: Subscription | None = cache.get(subscription_id)
        if subscription is None or tenant not in (None, subscription.tenant):
            return self.fresh(subscription_id, tenant=tenant)
        return subscription

    def fresh(self, subscription_id: UUID, *, tenant: str | None = None) -> "Subscription":
        """Return a subscription as it is now, for `cached` to find from here on; all else is as there."""
        generation = cache.generation()
        # By the database's clock, at the time of this query.
        is_rotating = models.ExpressionWrapper(
            models.Q(previous_secret_until__gt=Now()), output_field=models.BooleanField()
        )
        found = self.existing().for_tenant(tenant).annotate(is_rotating=is_rotating)
        subscription: Subscription = found.get(id=subscription_id)
        cache.put(subscription_id, subscription, generation=generation)
        return subscription

    def pause(self, reason: str = "") -> int:
        """Have the active subscriptions among these accept and hold; return how many."""
        return self._move(Subscription.Status.PAUSED, of=(Subscription.Status.ACTIVE,), reason=reason)

    def resume(self, reason: str = "") -> int:
        """Have the paused subscriptions among these deliver again; return how many."""
        return self._move(Subscription.Status.ACTIVE, of=(Subscription.Status.PAUSED,), reason=reason)

    def disable(self, reason: str = "") -> int:
        """Have those among these that are not disabled take nothing more, and say why; return how many."""
        of = (Subscription.Status.ACTIVE, Subscription.Status.PAUSED)
        return self._move(Subscription.Status.DISABLED, of=of, reason=reason)

    def enable(self, reason: str = "") -> int:
        """Have the disabled subscriptions among these deliver again; return how many."""
        disabled = self.filter(status=Subscription.Status.DISABLED)
        # A clean slate: the failures from before must not disable it again at once.
        Subscription.objects.filter(id__in=list(disabled.values_list("id", flat=True))).close_circuit()
        disabled.update(failing_since=None, blocked_until=None, given_up_at=None, warned_at=None)
        return self._move(Subscription.Status.ACTIVE, of=(Subscription.Status.DISABLED,), reason=reason)

    def open_circuit(self) -> int:
        """Hold the requests of these until people close the circuit again; return how many were not held so."""
        ids = list(self.values_list("id", flat=True))
        # One that failures opened would still be probed, and closed by a success.
        not_held = self.filter(models.Q(circuit_opened_at=None) | models.Q(circuit_probe_at__isnull=False))
        opened = not_held.update(circuit_opened_at=Coalesce("circuit_opened_at", Now()), circuit_probe_at=None)
        _forget(ids)
        return opened

    def close_circuit(self) -> int:
        """Let calls to these through again, with a fresh window; return how many were open."""
        ids = list(self.values_list("id", flat=True))
        closed = self.exclude(circuit_opened_at=None).update(
            circuit_opened_at=None,
            circuit_probe_at=None,
            circuit_trips=0,
            window_started_at=None,
            window_calls=0,
            window_failures=0,
        )
        _forget(ids)
        return closed

    def forget_previous_secrets(self) -> int:
        """Delete the secrets that were rotated away and whose time is over; return how many."""
        over = self.filter(previous_secret_until__lte=Now())
        return over.update(previous_secret=None, previous_secret_until=None)

    def _move(self, status: str, *, of: Sequence[str], reason: str = "") -> int:
        """Change the status of those that have one in `of`, and make this process forget them."""
        ids = list(self.filter(status__in=of).values_list("id", flat=True))
        moved = self.model.objects.filter(id__in=ids, status__in=of).update(
            status=status, status_reason=reason, updated_at=Now()
        )
        _forget(ids)
        return moved


def _forget(ids: Iterable[UUID]) -> None:
    """Make this process forget the cached copies of these, before and after the commit."""
    for subscription_id in ids:
        cache.forget(subscription_id)
        transaction.on_commit(partial(cache.forget, subscription_id))


class Subscription(Credentials):
    """One endpoint that wants events, and how it wants them."""

    class Status(models.TextChoices):
        ACTIVE = "active"
        PAUSED = "paused"  # accepts and holds
        DISABLED = "disabled"  # takes nothing

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.CharField(
        max_length=255, blank=True, default="", help_text="The customer this subscription belongs to."
    )
    description = models.CharField(max_length=255, blank=True, default="")
    metadata = models.JSONField(
        blank=True,
        default=dict,
        validators=[validate_metadata],
        help_text="A JSON object of your own, up to 4 KB.",
    )
    target_url = models.CharField(
        max_length=addresses.MAX_URL_LENGTH,
        validators=[validate_target_url],
        help_text="The http(s) URL that events are posted to.",
    )
    event_types = ArrayField(
        models.CharField(max_length=event_types.MAX_LENGTH, validators=[validate_event_type_pattern]),
        blank=True,
        default=list,
        size=MAX_EVENT_TYPES,
        help_text="Event types (invoice.paid), wildcards (invoice.*) or *; none means every event.",
    )
    # Which of the events of these types are wanted; null means all of them.
    filter = models.JSONField(
        null=True, blank=True, help_text="Conditions over the payload and the event's fields."
    )
    headers = models.JSONField(
        blank=True, default=dict, help_text="Extra headers to send: an object of names and values."
    )
    ca_certificates = models.TextField(
        blank=True,
        default="",
        help_text="PEM certificates that the receiver is verified against, instead of the usual ones.",
    )
    retry_schedule = ArrayField(
        models.PositiveIntegerField(
            validators=[MinValueValidator(1), MaxValueValidator(LONGEST_RETRY_DELAY_SECONDS)]
        ),
        blank=True,
        default=default_retry_schedule,
        size=MAX_RETRIES,
        help_text="Seconds to wait after each failed attempt; none means a single attempt.",
    )
    timeout_seconds = models.PositiveSmallIntegerField(
        default=default_timeout,
        validators=[MinValueValidator(1), MaxValueValidator(LONGEST_CALL_TIMEOUT_SECONDS)],
        help_text="Limit for a whole call, in seconds.",
    )
    max_in_flight = models.PositiveSmallIntegerField(
        default=default_max_in_flight,
        validators=[MinValueValidator(1), MaxValueValidator(1000)],
        help_text="Calls at once.",
    )
    rate_limit = models.FloatField(
        null=True,
        blank=True,
        validators=[MinValueValidator(SLOWEST_RATE), MaxValueValidator(FASTEST_RATE)],
        help_text="Calls per second at most; none means no limit.",
    )
    ordered = models.BooleanField(default=False, help_text="Deliver strictly one at a time, in order of receipt.")
    status = models.CharField(max_length=8, choices=Status, default=Status.ACTIVE)
    status_reason = models.CharField(max_length=255, blank=True, default="", editable=False)

    # What the engine remembers of the endpoint: deliveries/settlements.py writes it, and the rate limit
    # deliveries/takes.py. A claim reads it all.
    # A request of an ordered subscription failed and blocks the others until then.
    blocked_until = models.DateTimeField(null=True, editable=False)
    # When the claims within the rate limit's window were made, and how many calls each.
    rate_times = ArrayField(models.DateTimeField(), default=list, editable=False)
    rate_counts = ArrayField(models.PositiveIntegerField(), default=list, editable=False)
    # The circuit breaker: its window of calls, since when it is open, when it may be
    # probed (never, if people opened it), how often it opened in a row.
    window_started_at = models.DateTimeField(null=True, editable=False)
    window_calls = models.PositiveIntegerField(default=0, editable=False)
    window_failures = models.PositiveIntegerField(default=0, editable=False)
    circuit_opened_at = models.DateTimeField(null=True, editable=False)
    circuit_probe_at = models.DateTimeField(null=True, editable=False)
    circuit_trips = models.PositiveSmallIntegerField(default=0, editable=False)
    # Nothing but failures since then.
    failing_since = models.DateTimeField(null=True, editable=False)
    # When it was last disabled without anybody's asking, and when people were last told of its failures.
    given_up_at = models.DateTimeField(null=True, editable=False)
    warned_at = models.DateTimeField(null=True, editable=False)

    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    # Deleted for everybody; the row stays as long as its history does.
    deleted_at = models.DateTimeField(null=True, editable=False)

    objects = SubscriptionQuerySet.as_manager()

    class Meta(Credentials.Meta):
        abstract = False
        db_table = "subscriptions"
        ordering = ("-id",)
        permissions = (("operate_subscription", "Can pause and resume subscription"),)
        indexes = (
            # GET /subscriptions?tenant= and a tenant's own list, newest first.
            models.Index(fields=("tenant", "-id"), name="subscriptions_by_tenant"),
            # What deleted subscriptions leave behind (deliveries/orphans.py).
            models.Index(
                fields=("deleted_at",), name="subscriptions_deleted", condition=models.Q(deleted_at__isnull=False)
            ),
            # Those of which people may have to be told (deliveries/troubles.py).
            models.Index(
                fields=("id",),
                name="subscriptions_in_trouble",
                condition=models.Q(failing_since__isnull=False) | models.Q(given_up_at__isnull=False),
            ),
        )
        constraints = (
            models.CheckConstraint(
                condition=models.Q(timeout_seconds__range=(1, LONGEST_CALL_TIMEOUT_SECONDS)),
                name="subscriptions_timeout_in_range",
            ),
            models.CheckConstraint(
                condition=models.Q(max_in_flight__gte=1), name="subscriptions_max_in_flight_positive"
            ),
            models.CheckConstraint(
                condition=models.Q(rate_limit=None) | models.Q(rate_limit__gte=SLOWEST_RATE),
                name="subscriptions_rate_limit_positive",
            ),
        )

    def __str__(self) -> str:
        text = self.description if self.description.strip() else self.target_url
        return visible(text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…")

    def save(self, *args: Any, update_fields: Iterable[str] | None = None, **kwargs: Any) -> None:
        """Save, note when, and make this process forget the cached copy, before and after the commit."""
        if not self._state.adding:
            self.updated_at = timezone.now()
            update_fields = None if update_fields is None else {*update_fields, "updated_at"}
        super().save(*args, update_fields=update_fields, **kwargs)
        _forget([self.id])

    @property
    def circuit(self) -> Circuit:
        """The circuit breaker's state, by the clock of this host."""
        if self.circuit_opened_at is None:
            return Circuit.CLOSED
        is_probing = self.circuit_probe_at is not None and self.circuit_probe_at <= timezone.now()
        return Circuit.HALF_OPEN if is_probing else Circuit.OPEN

    @property
    def is_blocked_now(self) -> bool:
        """Whether a request that failed holds up the others of this ordered subscription."""
        return self.blocked_until is not None and self.blocked_until > timezone.now()

    @property
    def is_rate_limited_now(self) -> bool:
        """Whether the rate limit has no call left at this moment, by the clock of this host."""
        if self.rate_limit is None:
            return False
        calls = max(math.floor(self.rate_limit), 1)
        window = timedelta(seconds=calls / self.rate_limit)
        since = timezone.now() - window
        made = zip(self.rate_times, self.rate_counts, strict=True)
        return sum(count for at, count in made if at > since) >= calls

    @property
    def disable_at(self) -> datetime | None:
        """When the subscription will be disabled if nothing but failures goes on."""
        if self.failing_since is None or self.is_disabled:
            return None
        return self.failing_since + timedelta(seconds=settings.DISABLE_AFTER_SECONDS)

    @property
    def is_disabled(self) -> bool:
        return self.status == self.Status.DISABLED

    def accepts(self, event_type: str) -> bool:
        return event_types.accepts(self.event_types, event_type)

    def remove(self) -> None:
        """Delete this subscription for everybody, and its secrets for good; the row stays for its history.

        Nothing is accepted or delivered from now on. What is still pending is canceled by
        deliveries/orphans.py.
        """
        self.status = self.Status.DISABLED
        self.status_reason = "deleted"
        self.deleted_at = timezone.now()
        self.wipe()
        self.save()
