"""What came of a webhook request: the log of its attempts."""

from typing import Self

from django.db import models
from django.db.models import Case, F, Func, Q, Sum, Value, When, Window

from deliveries.outcome import HINTS, ErrorClass
from subscriptions.ids import new_id
from subscriptions.models import Subscription


class Trigger(models.TextChoices):
    """Why an attempt is made."""

    INITIAL = "initial"
    RETRY = "retry"  # the machine's
    REPLAY = "replay"  # people's


# The last attempts of a request, whose answers are told along with it. It may be replayed without
# end, and the answers to all its attempts, some 100 KB each, would fill the memory.
ANSWERS_TOLD = 100
# And as many bytes of these together, which JSON may write as six times as many.
ANSWER_BYTES_TOLD = 1_000_000
# And the last ones that are told at all: a hundred thousand take 8 s and 200 MB.
ATTEMPTS_TOLD = 1_000


ANSWER = ("response_headers", "response_body")


class DeliveryAttemptQuerySet(models.QuerySet["DeliveryAttempt"]):
    def as_log(self) -> Self:
        """Limit to the last attempts of a request, in order, with `told_headers` and `told_body`.

        These are empty but for the very last.
        """
        is_recent = Q(attempt_number__gt=F("request__attempt_count") - ANSWERS_TOLD)
        is_told = is_recent & Q(answer_bytes__lte=ANSWER_BYTES_TOLD)
        return (
            self.filter(attempt_number__gt=F("request__attempt_count") - ATTEMPTS_TOLD)
            .defer(*ANSWER)
            .annotate(answer_bytes=_answer_bytes())
            .annotate(
                told_headers=Case(
                    When(is_told, then="response_headers"), default=Value("", output_field=models.TextField())
                ),
                told_body=Case(
                    When(is_told, then="response_body"), default=Value(b"", output_field=models.BinaryField())
                ),
            )
            .order_by("attempt_number")
        )


def _answer_bytes() -> Window:
    """Return the bytes of an attempt's answer and of those to later attempts of its request."""
    sizes = [Func(name, function="octet_length", output_field=models.IntegerField()) for name in ANSWER]
    return Window(Sum(sizes[0] + sizes[1]), partition_by="request_id", order_by=F("attempt_number").desc())


class DeliveryAttempt(models.Model):
    """One HTTP call and what came of it. Only one that was taken for lost is ever changed: by its late outcome."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    request = models.ForeignKey("WebhookRequest", models.PROTECT, related_name="attempts", db_index=False)
    subscription = models.ForeignKey(Subscription, models.PROTECT, related_name="attempts", db_index=False)
    attempt_number = models.PositiveIntegerField()
    trigger = models.CharField(max_length=8, choices=Trigger)
    attempted_at = models.DateTimeField()
    success = models.BooleanField()
    status_code = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(
        max_length=16, blank=True, choices=[(error.value, error.value) for error in ErrorClass]
    )
    # In words, where more is known than the class of the error says.
    specific_hint = models.CharField(max_length=500, blank=True, db_default="")
    response_ms = models.PositiveIntegerField(null=True)
    dns_ms = models.PositiveIntegerField(null=True)
    connect_ms = models.PositiveIntegerField(null=True)
    tls_ms = models.PositiveIntegerField(null=True)
    first_byte_ms = models.PositiveIntegerField(null=True)
    response_headers = models.TextField(blank=True, default="")
    response_body = models.BinaryField(default=b"")

    objects = DeliveryAttemptQuerySet.as_manager()

    class Meta:
        db_table = "delivery_attempts"
        ordering = ("-id",)
        indexes = (
            # GET /status/subscription/{id}: a subscription's latest attempts.
            models.Index(fields=("subscription", "-attempted_at"), name="attempts_by_subscription"),
        )
        constraints = (
            # Also the index of GET /status/request/{id} and of a request's page in the admin.
            models.UniqueConstraint(fields=("request", "attempt_number"), name="attempts_numbered_once"),
        )

    def __str__(self) -> str:
        return f"attempt {self.attempt_number} of {self.request_id}"

    @property
    def error_class(self) -> ErrorClass | None:
        return ErrorClass(self.error) if self.error else None

    @property
    def hint(self) -> str | None:
        """What the owner of the receiver may do about this outcome, in words."""
        if self.error_class is None:
            return None
        return self.specific_hint or HINTS[self.error_class]
