"""Requests in JSON: what selects them, and one with its payload."""

from typing import Any

import msgspec
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from deliveries.models import WebhookRequest
from deliveries.serializers import ERROR_CHOICES, FindingsField, LoggedAttemptSerializer, RequestSerializer
from subscriptions.event_types import MAX_LENGTH
from subscriptions.lists import FilterSerializer
from subscriptions.strict import StrictFieldsMixin
from subscriptions.validation import validate_event_type


class SelectionMixin(serializers.Serializer[Any]):
    """By what requests are listed, and selected for a bulk replay."""

    subscription = serializers.UUIDField(required=False, help_text="Requests for this subscription.")
    tenant = serializers.CharField(
        required=False, allow_blank=True, max_length=255, help_text="Requests of this tenant, exactly."
    )
    event_type = serializers.CharField(
        required=False,
        max_length=MAX_LENGTH,
        validators=[validate_event_type],
        help_text="Requests of this event type, exactly.",
    )
    received_after = serializers.DateTimeField(required=False, help_text="Received at this time or later.")
    received_before = serializers.DateTimeField(required=False, help_text="Received before this time.")


class RequestFilterSerializer(SelectionMixin, FilterSerializer):
    """The filters of GET /requests."""

    status = serializers.ChoiceField(
        choices=WebhookRequest.Status.choices, required=False, help_text="Requests that stand like this."
    )
    error = serializers.ChoiceField(
        choices=ERROR_CHOICES,
        required=False,
        help_text="Not delivered, or not yet, and the last attempt ended like this.",
    )


class RequestDetailSerializer(RequestSerializer):
    """A request with its attempts, oldest first, and its payload: byte for byte what is delivered."""

    attempts = LoggedAttemptSerializer(many=True)
    findings = FindingsField(
        source="all_findings", allow_null=True, help_text="What its event type's schema finds wrong, or null."
    )
    payload = serializers.SerializerMethodField()

    class Meta(RequestSerializer.Meta):
        fields = (*RequestSerializer.Meta.fields, "findings", "attempts", "payload")

    @extend_schema_field({"description": "The JSON that is delivered, untouched: spaces and number formats too."})
    def get_payload(self, request: WebhookRequest) -> Any:
        return msgspec.Raw(request.body)


class NothingSerializer(StrictFieldsMixin, serializers.Serializer[Any]):
    """The body of a call that takes none: a field that is sent all the same was meant to change something."""
