"""What was published, once for everybody who listens."""

from typing import Self

from django.db import models
from django.db.models.functions import Now

from subscriptions import event_types
from subscriptions.ids import new_id


class EventQuerySet(models.QuerySet["Event"]):
    def for_tenant(self, tenant: str | None) -> Self:
        """Limit to one tenant's events; None, an operator's view, means all of them."""
        return self if tenant is None else self.filter(tenant=tenant)


class Event(models.Model):
    """Something published once, for everybody who listens. Its payload is stored here alone."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.CharField(max_length=255, blank=True, default="")
    event_type = models.CharField(max_length=event_types.MAX_LENGTH)
    payload = models.BinaryField()
    published_at = models.DateTimeField(db_default=Now())

    # What its event type's schema finds wrong with the payload; null means nothing.
    findings = models.JSONField(null=True)

    objects = EventQuerySet.as_manager()

    class Meta:
        db_table = "events"
        ordering = ("-id",)
        indexes = (
            # GET /events?event_type=, newest first.
            models.Index(fields=("event_type", "-id"), name="events_by_type"),
            # A tenant's events, newest first, and those of one type. Who has no tenants pays nothing.
            models.Index(fields=("tenant", "-id"), name="events_by_tenant", condition=~models.Q(tenant="")),
            models.Index(
                fields=("tenant", "event_type", "-id"),
                name="events_by_tenant_and_type",
                condition=~models.Q(tenant=""),
            ),
        )

    def __str__(self) -> str:
        return f"{self.event_type} {self.id}"

    @property
    def body(self) -> bytes:
        """The payload's bytes."""
        return bytes(self.payload)
