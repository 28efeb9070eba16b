"""Subscriptions in JSON, in and out."""

from typing import Any

from rest_framework import serializers

from subscriptions import secrets
from subscriptions.models import Circuit, Subscription
from subscriptions.validation import validate_secret


class StrictFieldsMixin:
    """Refuse fields that the serializer does not take, so that a typo is never silently dropped."""

    def to_internal_value(self, data: Any) -> Any:
        writable = {name for name, field in self.fields.items() if not field.read_only}  # type: ignore[attr-defined]
        unknown = sorted(set(data) - writable) if isinstance(data, dict) else []
        if unknown:
            raise serializers.ValidationError(
                {name: serializers.ErrorDetail("This field is not known.", code="unknown") for name in unknown}
            )
        return super().to_internal_value(data)  # type: ignore[misc]


class SubscriptionSerializer(StrictFieldsMixin, serializers.ModelSerializer[Subscription]):
    """A subscription as everybody may see it: without its secret."""

    circuit = serializers.ChoiceField(
        choices=Circuit.choices, read_only=True, help_text="Open holds requests; half-open tries one."
    )
    disable_at = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="When it will be disabled, if nothing but failures goes on."
    )

    class Meta:
        model = Subscription
        fields: tuple[str, ...] = (
            "id",
            "tenant",
            "description",
            "target_url",
            "event_types",
            "retry_schedule",
            "timeout_seconds",
            "max_in_flight",
            "rate_limit",
            "ordered",
            "status",
            "status_reason",
            "circuit",
            "circuit_probe_at",
            "failing_since",
            "disable_at",
            "secret_hint",
            "created_at",
            "updated_at",
        )
        read_only_fields = (
            "id",
            "status",
            "status_reason",
            "circuit_probe_at",
            "failing_since",
            "secret_hint",
            "created_at",
            "updated_at",
        )


class NewSubscriptionSerializer(SubscriptionSerializer):
    """A subscription at its creation: the one time that its secret is told."""

    secret = serializers.CharField(
        required=False,
        trim_whitespace=False,
        max_length=secrets.MAX_LENGTH,
        validators=[validate_secret],
        help_text="Signs ingest calls and deliveries; made if not given. Told in this answer and never again.",
    )

    class Meta(SubscriptionSerializer.Meta):
        fields = (*SubscriptionSerializer.Meta.fields, "secret")

    def create(self, validated_data: dict[str, Any]) -> Subscription:
        self.told_secret: str = validated_data.pop("secret", None) or secrets.make()
        subscription = Subscription(**validated_data)
        subscription.set_secret(self.told_secret)
        subscription.save()
        return subscription

    def to_representation(self, instance: Subscription) -> dict[str, Any]:
        return SubscriptionSerializer(instance).data | {"secret": self.told_secret}
