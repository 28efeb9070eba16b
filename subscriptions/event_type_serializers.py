"""Event types in JSON, in and out."""

from typing import Any

from django.core.exceptions import ValidationError as InvalidValue
from rest_framework import serializers

from subscriptions.catalog import EventType, check_enforceable, check_example, validate_schema
from subscriptions.event_types import MAX_LENGTH
from subscriptions.fields import ObjectField
from subscriptions.lists import FilterSerializer
from subscriptions.strict import StrictFieldsMixin
from subscriptions.validation import validate_event_type, validate_storable


class EventTypeFilterSerializer(FilterSerializer):
    """The filters of GET /event-types."""

    deprecated = serializers.BooleanField(
        required=False, help_text="Those that are deprecated, or those that are not."
    )
    validation = serializers.ChoiceField(required=False, choices=EventType.Validation.choices)


class EventTypeSerializer(StrictFieldsMixin, serializers.ModelSerializer[EventType]):
    """An event type that is described. `null` for `schema` or `example` means that there is none."""

    schema = ObjectField(
        required=False,
        allow_null=True,
        validators=[validate_storable, validate_schema],
        help_text="JSON Schema (2020-12) of the payload; it may only refer to itself.",
    )

    class Meta:
        model = EventType
        fields = (
            "name",
            "description",
            "schema",
            "example",
            "deprecated",
            "validation",
            "created_at",
            "updated_at",
        )
        read_only_fields: tuple[str, ...] = ("created_at", "updated_at")
        # That a name is free is found when it is stored: until then another call may take it.
        extra_kwargs = {"name": {"max_length": MAX_LENGTH, "validators": [validate_event_type]}}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse what does not go together, whichever is new: an example, a validation and the schema."""
        found = {
            name: attrs[name] if name in attrs else getattr(self.instance, name, None)
            for name in ("schema", "example", "validation")
        }
        takes_schema_away = "schema" in attrs and "validation" not in attrs
        try:
            field = "schema" if takes_schema_away else "validation"
            check_enforceable(found["schema"], found["validation"], field=field)
            check_example(found["schema"], found["example"])
        except InvalidValue as invalid:
            raise serializers.ValidationError(serializers.as_serializer_error(invalid)) from None
        return attrs


class ChangedEventTypeSerializer(EventTypeSerializer):
    """Changes to an event type: the fields given. Its name stays."""

    refusals = {"name": "The name of an event type cannot be changed."}

    class Meta(EventTypeSerializer.Meta):
        read_only_fields = ("name", *EventTypeSerializer.Meta.read_only_fields)
