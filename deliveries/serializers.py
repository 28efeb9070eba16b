"""Requests and attempts in JSON, out; and the body of an ingest call, for the documentation."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema_field
from rest_framework import serializers

from deliveries import idempotency
from deliveries.attempts import ANSWER_BYTES_TOLD, ANSWERS_TOLD
from deliveries.models import DeliveryAttempt, HoldReason, Trigger, WebhookRequest
from deliveries.outcome import HINTS, ErrorClass
from subscriptions.event_types import MAX_LENGTH
from subscriptions.strict import StrictFieldsMixin

ERROR_CHOICES = [(error.value, HINTS[error]) for error in ErrorClass]

# For the documentation.
IDEMPOTENCY_KEY = OpenApiParameter(
    idempotency.HEADER,
    {"type": "string", "pattern": idempotency.PATTERN, "minLength": 1, "maxLength": idempotency.MAX_LENGTH},
    location=OpenApiParameter.HEADER,
    description="The same key within 24 hours gets the first answer again, and stores nothing.",
)

REPLAYED = OpenApiParameter(
    idempotency.REPLAYED_HEADER,
    {"type": "string", "const": "true"},
    location=OpenApiParameter.HEADER,
    response=[202],
    description="This is the answer to an earlier call with this key: nothing was stored now.",
)


class FindingSerializer(serializers.Serializer[Any]):
    """What a schema finds wrong with a payload."""

    pointer = serializers.CharField(
        allow_blank=True, help_text="A JSON pointer (RFC 6901) into the payload; empty is the payload as a whole."
    )
    code = serializers.CharField(
        help_text="The keyword of the JSON Schema that is not met; `schema` or `unreadable` if that is not told."
    )
    detail = serializers.CharField(help_text="What is wrong, for people.")


@extend_schema_field(FindingSerializer(many=True))
class FindingsField(serializers.JSONField):
    """Findings as they are stored."""


class ReadinessSerializer(serializers.Serializer[Any]):
    """Each part is `ok`, or what is wrong with it."""

    database = serializers.CharField()
    redis = serializers.CharField()
    workers = serializers.CharField()
    maintenance = serializers.CharField()
    scheduler = serializers.CharField()
    oldest_due_seconds = serializers.FloatField(allow_null=True)


class IngestSerializer(serializers.Serializer[Any]):
    """An event for one subscription. `body` is any JSON; its bytes are delivered untouched."""

    subscription_id = serializers.UUIDField()
    event_type = serializers.CharField(max_length=MAX_LENGTH)
    body = serializers.JSONField()


class AcceptedSerializer(serializers.Serializer[Any]):
    request_id = serializers.UUIDField()


class AttemptSerializer(serializers.ModelSerializer[DeliveryAttempt]):
    """One HTTP call. Times are in milliseconds; null where there was none."""

    error = serializers.ChoiceField(choices=ERROR_CHOICES, source="error_class", allow_null=True)
    hint = serializers.CharField(allow_null=True, help_text="What the receiver's owner may do about it, in words.")
    trigger = serializers.ChoiceField(choices=Trigger.choices)

    class Meta:
        model = DeliveryAttempt
        fields: tuple[str, ...] = (
            "id",
            "attempt_number",
            "trigger",
            "attempted_at",
            "success",
            "status_code",
            "response_ms",
            "error",
            "hint",
            "dns_ms",
            "connect_ms",
            "tls_ms",
            "first_byte_ms",
        )


class LoggedAttemptSerializer(AttemptSerializer):
    """An attempt of `as_log` with the receiver's answer: headers, and at most 64 KB of the body."""

    response_headers = serializers.CharField(
        source="told_headers",
        help_text=f"Empty, as the body is, for all but the last {ANSWERS_TOLD} attempts, and for those before the "
        f"last {ANSWER_BYTES_TOLD:,} bytes of answers.",
    )
    response_body = serializers.SerializerMethodField(help_text="At most 64 KB of it.")

    class Meta(AttemptSerializer.Meta):
        fields = (*AttemptSerializer.Meta.fields, "response_headers", "response_body")

    def get_response_body(self, attempt: DeliveryAttempt) -> str:
        told: bytes = attempt.told_body  # type: ignore[attr-defined]
        return bytes(told).decode(errors="replace")


class RecentAttemptSerializer(AttemptSerializer):
    request_id = serializers.UUIDField()

    class Meta(AttemptSerializer.Meta):
        fields = (*AttemptSerializer.Meta.fields, "request_id")


class HoldReasonField(serializers.ChoiceField):
    def __init__(self) -> None:
        super().__init__(
            choices=HoldReason.choices,
            allow_null=True,
            help_text="Why a pending request waits, or null. Those of a disabled subscription go out once it is "
            "enabled again.",
        )


class RequestSerializer(serializers.ModelSerializer[WebhookRequest]):
    """A request and where it stands, without its payload and its attempts."""

    request_id = serializers.UUIDField(source="id")
    subscription_id = serializers.UUIDField()
    event_id = serializers.UUIDField(allow_null=True)
    status = serializers.ChoiceField(choices=WebhookRequest.Status.choices)
    status_reason = serializers.CharField(
        help_text="Why it was skipped or canceled, or failed because the receiver wants it no more, in words."
    )
    hold_reason = HoldReasonField()
    error = serializers.ChoiceField(
        choices=ERROR_CHOICES, source="last_error", allow_null=True, help_text="How its last attempt failed."
    )
    trigger = serializers.ChoiceField(choices=Trigger.choices, help_text="Why its next attempt is made, or was.")
    next_attempt_at = serializers.DateTimeField(source="due_at", allow_null=True)

    class Meta:
        model = WebhookRequest
        fields: tuple[str, ...] = (
            "request_id",
            "subscription_id",
            "event_id",
            "tenant",
            "event_type",
            "status",
            "status_reason",
            "hold_reason",
            "error",
            "trigger",
            "received_at",
            "settled_at",
            "attempt_count",
            "next_attempt_at",
        )


class RequestStatusSerializer(RequestSerializer):
    """A request, where it stands, and its whole attempt log, oldest first."""

    attempts = LoggedAttemptSerializer(many=True)
    findings = FindingsField(
        source="all_findings", allow_null=True, help_text="What its event type's schema finds wrong, or null."
    )

    class Meta(RequestSerializer.Meta):
        fields = (
            "request_id",
            "subscription_id",
            "event_id",
            "event_type",
            "status",
            "hold_reason",
            "received_at",
            "attempt_count",
            "next_attempt_at",
            "findings",
            "attempts",
        )


class SubscriptionStatusSerializer(serializers.Serializer[Any]):
    """A subscription's most recent attempts, newest first."""

    subscription_id = serializers.UUIDField()
    attempts = RecentAttemptSerializer(many=True)


class NewTrialSerializer(StrictFieldsMixin, serializers.Serializer[Any]):
    """What a test call sends: of any event type, also one that the subscription does not take."""

    event_type = serializers.CharField(required=False, default="webhook.test", max_length=MAX_LENGTH)
    body = serializers.JSONField(required=False, help_text='Sent byte for byte; {"test": true} if not given.')


class TrialSerializer(serializers.Serializer[Any]):
    """What a test call came to. Times are in milliseconds; null where there was none."""

    webhook_id = serializers.UUIDField(help_text="The `webhook-id` that the receiver got. No request is stored.")
    event_type = serializers.CharField()
    attempted_at = serializers.DateTimeField()
    success = serializers.BooleanField(source="outcome.is_success")
    status_code = serializers.IntegerField(source="outcome.status_code", allow_null=True)
    response_ms = serializers.IntegerField(source="outcome.response_ms")
    error = serializers.ChoiceField(choices=ERROR_CHOICES, source="outcome.error", allow_null=True)
    hint = serializers.CharField(allow_null=True, help_text="What the receiver's owner may do about it, in words.")
    dns_ms = serializers.IntegerField(source="outcome.dns_ms", allow_null=True)
    connect_ms = serializers.IntegerField(source="outcome.connect_ms", allow_null=True)
    tls_ms = serializers.IntegerField(source="outcome.tls_ms", allow_null=True)
    first_byte_ms = serializers.IntegerField(source="outcome.first_byte_ms", allow_null=True)
    response_headers = serializers.CharField(source="outcome.response_headers")
    response_body = serializers.CharField(help_text="At most 64 KB of it.")
