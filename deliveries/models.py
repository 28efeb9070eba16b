"""What was asked for: webhook requests. Here Django finds the other models too, each of which has a module."""

from datetime import datetime, timedelta
from typing import Any, Self, cast

from django.db import models, transaction
from django.db.models import Exists, F, OuterRef, Prefetch
from django.db.models.functions import Now
from django.utils import timezone

from deliveries.attempts import DeliveryAttempt as DeliveryAttempt
from deliveries.attempts import Trigger as Trigger
from deliveries.bulk import Operation as Operation
from deliveries.bulk import OperationPart as OperationPart
from deliveries.events import Event as Event
from deliveries.heartbeats import Heartbeat as Heartbeat
from deliveries.holds import HOLDING_FIELDS
from deliveries.holds import HoldReason as HoldReason
from deliveries.idempotency_keys import IdempotencyKey as IdempotencyKey
from deliveries.outcome import ErrorClass
from subscriptions import event_types
from subscriptions.ids import new_id
from subscriptions.models import Circuit, Subscription


def _waits_for_another() -> models.Case:
    """Say in SQL whether a request waits for another one of its ordered subscription."""
    pending = WebhookRequest.objects.filter(
        subscription_id=OuterRef("subscription_id"), status=WebhookRequest.Status.PENDING
    )
    earlier = Exists(pending.filter(next_attempt_at__lt=OuterRef("next_attempt_at")))
    leased = Exists(pending.filter(lease_token__isnull=False).exclude(id=OuterRef("id")))
    is_ordered = models.Q(status=WebhookRequest.Status.PENDING, subscription__ordered=True)
    return models.Case(models.When(is_ordered, then=models.Q(earlier | leased)), default=False)


class WebhookRequestQuerySet(models.QuerySet["WebhookRequest"]):
    def for_tenant(self, tenant: str | None) -> Self:
        """Limit to one tenant's requests; None, an operator's view, means all of them."""
        return self if tenant is None else self.filter(tenant=tenant)

    def settled(self) -> Self:
        return self.exclude(status=WebhookRequest.Status.PENDING)

    def settled_for(self, age: timedelta) -> Self:
        """Requests that have been settled for at least `age`, by the database's clock."""
        return self.settled().filter(settled_at__lte=Now() - age)

    def replay(self) -> int:
        """Start a new run of the settled requests among these; return how many.

        Their attempts stay, the numbers go on, the retry schedule begins anew. A pending
        request is left alone, so that a replay clicked twice is one replay.
        """
        with transaction.atomic():
            self.settled().log_unlogged_attempts()
            return self.settled().update(
                status=WebhookRequest.Status.PENDING,
                trigger=Trigger.REPLAY,
                next_attempt_at=Now(),
                settled_at=None,
                lease_token=None,
                failure_count=0,
                lost_count=0,
                error="",
                status_reason="",
            )

    def log_unlogged_attempts(self) -> None:
        """Log as lost what was in flight when these were settled and has not been heard of since.

        Later nobody would: the next attempt has the next number. Should its worker live, its
        late word takes the place of this.
        """
        logged = DeliveryAttempt.objects.filter(
            request_id=models.OuterRef("id"), attempt_number=models.OuterRef("attempt_count")
        )
        DeliveryAttempt.objects.bulk_create(
            [
                DeliveryAttempt(
                    request_id=request.id,
                    subscription_id=request.subscription_id,
                    attempt_number=request.attempt_count,
                    trigger=request.trigger,
                    attempted_at=cast(datetime, request.settled_at),
                    success=False,
                    error=ErrorClass.WORKER_LOST,
                )
                for request in self.filter(~models.Exists(logged), attempt_count__gt=0).defer("payload")
            ],
            ignore_conflicts=True,
        )

    def with_standing(self) -> Self:
        """Bring along what `hold_reason` and `due_at` ask: in one more query, however many requests there are."""
        holding = Prefetch("subscription", Subscription.objects.only(*HOLDING_FIELDS))
        return self.annotate(waits_for_another=_waits_for_another()).prefetch_related(holding)

    def cancel(self, reason: str = "") -> int:
        """End the pending requests among these untried, and say why; return how many.

        A call in flight is not called back: its attempt is logged, and changes nothing. An
        ordered subscription that waits for the retry of one of these goes on with the next.
        """
        pending = self.filter(status=WebhookRequest.Status.PENDING)
        # Those that failed and kept their place at the head; see deliveries/settlements.py.
        blocking = pending.filter(failure_count__gt=0, next_attempt_at=F("received_at"))
        with transaction.atomic():
            Subscription.objects.filter(id__in=blocking.values("subscription_id")).update(blocked_until=None)
            return pending.update(
                status=WebhookRequest.Status.CANCELED,
                status_reason=reason,
                settled_at=Now(),
                next_attempt_at=None,
                lease_token=None,
            )


# Settled without having been delivered.
UNDELIVERED = models.Q(status__in=("failed", "canceled", "skipped"))


class WebhookRequest(models.Model):
    """One payload for one subscription.

    Pending means that something is still to be tried: at `next_attempt_at`, which is also
    the end of the lease while a worker has it. See deliveries/claims.py.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"
        CANCELED = "canceled"
        SKIPPED = "skipped"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    subscription = models.ForeignKey(Subscription, models.PROTECT, related_name="requests", db_index=False)
    event = models.ForeignKey(
        Event, models.PROTECT, null=True, blank=True, related_name="requests", db_index=False
    )
    # Its subscription's, once more: lists of one tenant need it in their index.
    tenant = models.CharField(max_length=255, blank=True, db_default="")
    event_type = models.CharField(max_length=event_types.MAX_LENGTH)
    # The bytes that are sent, exactly as they came in; null when the event has them.
    payload = models.BinaryField(null=True)
    received_at = models.DateTimeField(db_default=Now())
    status = models.CharField(max_length=9, choices=Status, db_default=Status.PENDING)
    trigger = models.CharField(max_length=8, choices=Trigger, db_default=Trigger.INITIAL)
    next_attempt_at = models.DateTimeField(null=True, db_default=Now())
    settled_at = models.DateTimeField(null=True)
    # Names the claim that has this request; only who holds it may settle.
    lease_token = models.UUIDField(null=True)
    # Attempts ever made, which numbers them; failures of this run, which is the place in
    # the retry schedule; leases that ran out in a row.
    attempt_count = models.PositiveIntegerField(db_default=0)
    failure_count = models.PositiveSmallIntegerField(db_default=0)
    lost_count = models.PositiveSmallIntegerField(db_default=0)
    # The class of the last error, while the request is not delivered.
    error = models.CharField(max_length=16, blank=True, db_default="")
    # Why it was skipped or canceled, or failed because the receiver wants it no more, in words.
    status_reason = models.CharField(max_length=255, blank=True, db_default="")
    # What its event type's schema finds wrong with the payload; null means nothing, or see the event.
    findings = models.JSONField(null=True)

    objects = WebhookRequestQuerySet.as_manager()

    class Meta:
        db_table = "webhook_requests"
        ordering = ("-id",)
        permissions = (
            ("replay_webhookrequest", "Can replay webhook request"),
            ("cancel_webhookrequest", "Can cancel webhook request"),
        )
        indexes = (
            # The claim (deliveries/claims.py): which subscriptions have something due, and what.
            # The id puts those that came in the same instant in the order of receipt.
            models.Index(
                fields=("subscription", "next_attempt_at", "id"),
                name="requests_pending",
                condition=models.Q(status="pending"),
            ),
            # The claim's look for requests that have lost workers; there are hardly ever any.
            models.Index(
                fields=("subscription", "next_attempt_at", "id"),
                name="requests_suspect",
                condition=models.Q(status="pending", lost_count__gt=0),
            ),
            # The claim's count of what a subscription has in flight.
            models.Index(
                fields=("subscription", "next_attempt_at"),
                name="requests_leased",
                condition=models.Q(lease_token__isnull=False),
            ),
            # Requests of one subscription, newest first: admin and replay.
            models.Index(fields=("subscription", "-id"), name="requests_by_subscription"),
            # A tenant's requests, newest first. Who has no tenants pays nothing for it.
            models.Index(fields=("tenant", "-id"), name="requests_by_tenant", condition=~models.Q(tenant="")),
            # What was not delivered, newest first: the operator's first question, of all
            # subscriptions or of one. Failures are few: what is accepted and delivered pays nothing.
            models.Index(fields=("status", "-id"), name="requests_by_outcome", condition=UNDELIVERED),
            models.Index(
                fields=("subscription", "status", "-id"),
                name="requests_by_sub_outcome",
                condition=UNDELIVERED,
            ),
            # An operation's look at what it brought back and is not tried yet; there is little of it.
            models.Index(
                fields=("subscription", "next_attempt_at"),
                name="requests_replaying",
                condition=models.Q(status="pending", trigger="replay"),
            ),
            # Requests with one class of error, newest first.
            models.Index(fields=("error", "-id"), name="requests_by_error", condition=~models.Q(error="")),
            # The purge (deliveries/operations.py): settled requests by age.
            models.Index(
                fields=("settled_at",), name="requests_settled", condition=models.Q(settled_at__isnull=False)
            ),
            # The requests of one event, and the foreign key's own look-up.
            models.Index(fields=("event",), name="requests_by_event", condition=models.Q(event__isnull=False)),
        )
        constraints = (
            models.CheckConstraint(
                condition=models.Q(payload__isnull=False) ^ models.Q(event__isnull=False),
                name="requests_have_one_payload",
            ),
            models.CheckConstraint(
                condition=models.Q(status="pending", settled_at=None, next_attempt_at__isnull=False)
                | (
                    ~models.Q(status="pending")
                    & models.Q(settled_at__isnull=False, next_attempt_at=None, lease_token=None)
                ),
                name="requests_are_pending_or_settled",
            ),
        )

    def __str__(self) -> str:
        return f"{self.event_type} {self.id}"

    @property
    def is_pending(self) -> bool:
        return self.status == self.Status.PENDING

    @property
    def hold_reason(self) -> str | None:
        """Why a pending request is not tried though nothing is wrong with it, or None.

        Asks the database whether an ordered subscription is at another request, unless the
        request comes from `with_standing`.
        """
        if not self.is_pending or self.is_in_flight:
            return None
        subscription = self.subscription
        if subscription.status != Subscription.Status.ACTIVE:
            return str(subscription.status)
        if subscription.circuit == Circuit.OPEN:
            return HoldReason.CIRCUIT_OPEN.value
        if subscription.ordered and (subscription.is_blocked_now or self._waits_for_another()):
            return HoldReason.ORDERED.value
        if self.is_due and subscription.is_rate_limited_now:
            return HoldReason.RATE_LIMITED.value
        return None

    @property
    def due_at(self) -> datetime | None:
        """When it will be tried next: not before its ordered subscription is unblocked."""
        blocked_until = self.subscription.blocked_until
        if self.next_attempt_at is None or not self.subscription.ordered or blocked_until is None:
            return self.next_attempt_at
        return max(self.next_attempt_at, blocked_until)

    @property
    def is_due(self) -> bool:
        return self.next_attempt_at is not None and self.next_attempt_at <= timezone.now()

    @property
    def is_in_flight(self) -> bool:
        return self.lease_token is not None and not self.is_due

    def _waits_for_another(self) -> bool:
        known: bool | None = self.__dict__.get("waits_for_another")
        if known is not None:
            return known
        this = WebhookRequest.objects.filter(id=self.id).annotate(waits=_waits_for_another())
        return bool(this.values_list("waits", flat=True).get())

    @property
    def last_error(self) -> str | None:
        """The class of the last attempt's error, or None."""
        return self.error or None

    @property
    def all_findings(self) -> Any:
        """What is wrong with its payload by its event type's schema; None means nothing."""
        return self.findings if self.event is None else self.event.findings

    @property
    def body(self) -> bytes:
        """The payload's bytes, its own or its event's."""
        if self.event is not None:
            return self.event.body
        return bytes(self.payload or b"")
