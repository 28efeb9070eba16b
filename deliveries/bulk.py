"""Operations: what people ask of very many requests, as rows that outlive whoever works on them."""

from typing import Self

from django.db import connection, models
from django.db.models.functions import Now

from subscriptions.ids import new_id


class OperationQuerySet(models.QuerySet["Operation"]):
    def for_tenant(self, tenant: str | None) -> Self:
        """Limit to one tenant's operations; None, an operator's view, means all of them."""
        return self if tenant is None else self.filter(tenant=tenant)

    def active(self) -> Self:
        return self.filter(status__in=Operation.ACTIVE)

    def queue_up(self, tenant: str | None) -> None:
        """Let one caller at a time count and start operations of a tenant, until its transaction ends."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"operations of {tenant!r}"])

    def cancel(self) -> int:
        """Stop those among these that are not over; return how many. What they have done stays done."""
        return self.active().update(status=Operation.Status.CANCELED, finished_at=Now())


class Operation(models.Model):
    """Deliver again every settled request of a selection, at a pace; see deliveries/bulk_runs.py."""

    class Kind(models.TextChoices):
        RECOVER = "recover"  # one subscription, a window of time
        REPLAY = "replay"  # whatever fits the filters

    class Status(models.TextChoices):
        PENDING = "pending"
        RUNNING = "running"
        DONE = "done"
        CANCELED = "canceled"
        FAILED = "failed"

    ACTIVE = (Status.PENDING, Status.RUNNING)

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    kind = models.CharField(max_length=7, choices=Kind)
    tenant = models.CharField(  # noqa: DJ001 - null is every tenant, "" the tenant without a name
        max_length=255, null=True, blank=True
    )
    # The filters, under the names that GET /requests gives them.
    selection = models.JSONField(default=dict)
    status = models.CharField(max_length=8, choices=Status, default=Status.PENDING)
    # Why it failed, in words.
    status_reason = models.CharField(max_length=255, blank=True, default="")
    # How many requests were selected when it began, null before; how many it brought back.
    total = models.PositiveBigIntegerField(null=True)
    done = models.PositiveBigIntegerField(default=0)
    requested_by = models.CharField(max_length=255, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    # Not before then is the next batch due: that is the pace, whoever and how many run it.
    next_batch_at = models.DateTimeField(db_default=Now())

    objects = OperationQuerySet.as_manager()

    class Meta:
        db_table = "operations"
        ordering = ("-id",)
        indexes = (
            # GET /operations of a tenant, newest first.
            models.Index(fields=("tenant", "-id"), name="operations_by_tenant"),
            # The runner's question, every few seconds: is there something to do?
            models.Index(
                fields=("next_batch_at",),
                name="operations_active",
                condition=models.Q(status__in=("pending", "running")),
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

    @property
    def is_active(self) -> bool:
        return self.status in self.ACTIVE

    def end(self, status: str, reason: str = "") -> None:
        """Note, in this row that the caller has locked, that it is over."""
        Operation.objects.filter(id=self.id).update(status=status, status_reason=reason[:255], finished_at=Now())


class OperationPart(models.Model):
    """One subscription's share of an operation, and how far it has come."""

    operation = models.ForeignKey(Operation, models.CASCADE, related_name="parts", db_index=False)
    subscription_id = models.UUIDField()
    # The last request looked at; null before the first.
    position = models.UUIDField(null=True)
    visited_at = models.DateTimeField(null=True)
    is_finished = models.BooleanField(default=False)

    class Meta:
        db_table = "operation_parts"
        constraints = (
            models.UniqueConstraint(fields=("operation", "subscription_id"), name="operation_parts_once"),
        )
        indexes = (
            # The runner: whose turn is it?
            models.Index(
                models.F("operation"),
                models.F("visited_at").asc(nulls_first=True),
                name="operation_parts_open",
                condition=models.Q(is_finished=False),
            ),
        )

    def __str__(self) -> str:
        return f"{self.subscription_id} of {self.operation_id}"
