"""Events in JSON, out; and the bodies of publish calls, for the documentation."""

from typing import Any

import msgspec
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from deliveries.envelopes import MAX_BATCH, MAX_TENANT_LENGTH
from deliveries.models import Event, WebhookRequest
from deliveries.previews import Reason, Result
from deliveries.serializers import ERROR_CHOICES, FindingsField
from subscriptions.event_types import MAX_LENGTH
from subscriptions.lists import FilterSerializer
from subscriptions.validation import validate_event_type

# Requests that one event tells of; GET /requests lists them all.
MAX_TOLD_REQUESTS = 1_000


class NewEventSerializer(serializers.Serializer[Any]):
    """An event for everybody who takes it. `body` is any JSON; its bytes are delivered untouched."""

    event_type = serializers.CharField(max_length=MAX_LENGTH)
    body = serializers.JSONField()
    tenant = serializers.CharField(
        max_length=MAX_TENANT_LENGTH,
        allow_blank=True,
        required=False,
        help_text="Whose subscriptions it is for; if left out, those of the API key's tenant, or of "
        '`""` if the key is bound to none.',
    )


class NewBatchSerializer(serializers.Serializer[Any]):
    """Events to publish: all of them, or none if one is refused."""

    events = serializers.ListField(child=NewEventSerializer(), min_length=1, max_length=MAX_BATCH)


class MadeRequestSerializer(serializers.Serializer[Any]):
    """A request that an event made: pending, or skipped because its subscription is disabled."""

    subscription_id = serializers.UUIDField()
    request_id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=WebhookRequest.Status.choices)


class PublishedSerializer(serializers.Serializer[Any]):
    event_id = serializers.UUIDField(help_text="The event that was stored.")
    requests = MadeRequestSerializer(many=True)


class PublishedBatchSerializer(serializers.Serializer[Any]):
    """The events of a batch, in its order."""

    events = PublishedSerializer(many=True)


class ForecastSerializer(serializers.Serializer[Any]):
    """What would become of an event at one subscription."""

    subscription_id = serializers.UUIDField()
    result = serializers.ChoiceField(choices=Result.choices)
    reason = serializers.ChoiceField(choices=Reason.choices, allow_null=True)
    clause = serializers.CharField(allow_null=True, help_text="A JSON pointer to the clause of the filter.")
    detail = serializers.CharField(help_text="The reason in words.")


class PreviewSerializer(serializers.Serializer[Any]):
    """What would become of an event at each subscription of its tenant, the newest first."""

    subscriptions = ForecastSerializer(many=True)


class EventFilterSerializer(FilterSerializer):
    tenant = serializers.CharField(
        required=False, allow_blank=True, max_length=MAX_TENANT_LENGTH, help_text="Exactly this tenant."
    )
    event_type = serializers.CharField(
        required=False, max_length=MAX_LENGTH, validators=[validate_event_type], help_text="A whole event type."
    )
    published_after = serializers.DateTimeField(required=False, help_text="At this time or later.")
    published_before = serializers.DateTimeField(required=False, help_text="Before this time.")


class EventSerializer(serializers.ModelSerializer[Event]):
    """An event, without its payload."""

    findings = FindingsField(
        allow_null=True,
        help_text="What the schema of its event type finds wrong with the payload; null means nothing.",
    )

    class Meta:
        model = Event
        fields: tuple[str, ...] = ("id", "tenant", "event_type", "published_at", "findings")


class EventRequestSerializer(serializers.ModelSerializer[WebhookRequest]):
    """Where one of an event's requests stands."""

    request_id = serializers.UUIDField(source="id")
    subscription_id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=WebhookRequest.Status.choices)
    error = serializers.ChoiceField(choices=ERROR_CHOICES, source="last_error", allow_null=True)

    class Meta:
        model = WebhookRequest
        fields = ("request_id", "subscription_id", "status", "status_reason", "attempt_count", "error")


class EventDetailSerializer(EventSerializer):
    """An event with its payload, byte for byte what is delivered, and its requests, oldest first."""

    payload = serializers.SerializerMethodField()
    request_count = serializers.IntegerField(help_text="All of them, however many are listed.")
    requests = EventRequestSerializer(many=True, source="told_requests")

    class Meta(EventSerializer.Meta):
        fields = (*EventSerializer.Meta.fields, "payload", "request_count", "requests")

    @extend_schema_field({"description": "The JSON that is delivered, untouched: spaces and number formats too."})
    def get_payload(self, event: Event) -> Any:
        return msgspec.Raw(event.body)
