"""Subscriptions in JSON, in and out."""

from datetime import datetime, timedelta
from typing import Any, ClassVar

from rest_framework import serializers

from subscriptions import secrets
from subscriptions.event_types import MAX_LENGTH
from subscriptions.fields import AuthField, CertificatesField, FilterField, HeadersField, ObjectField
from subscriptions.lists import FilterSerializer
from subscriptions.models import Circuit, Subscription
from subscriptions.strict import StrictFieldsMixin
from subscriptions.validation import validate_event_type, validate_metadata, validate_secret

LONGEST_OVERLAP = timedelta(days=7)
USUAL_OVERLAP = timedelta(days=1)
MAX_REASON_LENGTH = 255
MAX_SEARCH_LENGTH = 100

TARGET_URL = (
    "The http(s) URL that events are posted to: in ASCII, without a user name and a fragment. The host is a "
    "public one or in `ALLOWED_NETWORKS`, which in local development is the machine itself; the port is 80, 443 "
    "or from 1024 on, and none that is known for something else, such as a database."
)
CIRCUIT = (
    "Open holds requests; half-open tries one. It opens when at least half of ten or more calls within five "
    "minutes failed, and is probed after 30 seconds, then after twice the time before, at most half an hour."
)


class SubscriptionFilterSerializer(FilterSerializer):
    """The query parameters of GET /subscriptions."""

    tenant = serializers.CharField(
        required=False, allow_blank=True, max_length=255, help_text="Exactly this tenant."
    )
    status = serializers.ChoiceField(
        required=False, choices=Subscription.Status.choices, help_text="Those in this status."
    )
    event_type = serializers.CharField(
        required=False,
        max_length=MAX_LENGTH,
        validators=[validate_event_type],
        help_text="Those that take this event type, by name or by wildcard.",
    )
    search = serializers.CharField(
        required=False,
        max_length=MAX_SEARCH_LENGTH,
        help_text="Those with this text in their description or target URL, in any case.",
    )


class SubscriptionSerializer(StrictFieldsMixin, serializers.ModelSerializer[Subscription]):
    """A subscription as everybody may see it: without its secret."""

    circuit = serializers.ChoiceField(choices=Circuit.choices, read_only=True, help_text=CIRCUIT)
    disable_at = serializers.DateTimeField(
        read_only=True,
        allow_null=True,
        help_text="When it will be disabled, if nothing but failures goes on: "
        "usually five days after `failing_since`.",
    )
    filter = FilterField(
        required=False, allow_null=True, help_text="Which of the events of these types are wanted; null means all."
    )
    metadata = ObjectField(
        required=False, validators=[validate_metadata], help_text="Yours: an object of at most 4 KB of JSON."
    )
    headers = HeadersField(required=False, help_text="Extra headers to send, shown to whoever may read this.")
    secret_headers = HeadersField(
        required=False, write_only=True, help_text="Extra headers whose values are never shown; {} removes them."
    )
    secret_header_names = serializers.ListField(
        child=serializers.CharField(),
        read_only=True,
        allow_null=True,
        help_text="The names of the secret headers; null if no key in `SECRET_KEYS` opens them.",
    )
    auth = AuthField(
        required=False,
        allow_null=True,
        help_text="How calls authenticate to the receiver; its secrets are never shown.",
    )
    ca_certificates = CertificatesField(
        required=False,
        help_text="PEM certificates that the receiver is verified against, instead of the usual ones.",
    )
    previous_secret_until = serializers.SerializerMethodField(
        help_text="During a rotation: until when the secret before this one counts as well."
    )

    class Meta:
        model = Subscription
        fields: tuple[str, ...] = (
            "id",
            "tenant",
            "description",
            "metadata",
            "target_url",
            "event_types",
            "filter",
            "headers",
            "secret_headers",
            "secret_header_names",
            "auth",
            "ca_certificates",
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
            "previous_secret_until",
            "created_at",
            "updated_at",
        )
        read_only_fields: tuple[str, ...] = (
            "id",
            "status",
            "status_reason",
            "circuit_probe_at",
            "failing_since",
            "secret_hint",
            "created_at",
            "updated_at",
        )
        extra_kwargs: ClassVar[dict[str, dict[str, Any]]] = {
            "target_url": {"help_text": TARGET_URL},
            "retry_schedule": {
                "help_text": "Seconds to wait after each failed attempt, [120, 240, 480, 960, 1920] unless "
                "`RETRY_SCHEDULE` says otherwise; [] means a single attempt."
            },
            "timeout_seconds": {
                "help_text": "Limit for a whole call, 15 unless `CALL_TIMEOUT_SECONDS` says otherwise."
            },
            "max_in_flight": {"help_text": "Calls at once, 32 unless `MAX_IN_FLIGHT` says otherwise."},
        }

    def get_previous_secret_until(self, subscription: Subscription) -> datetime | None:
        return subscription.previous_secret_until if subscription.is_rotating else None


def _plain(validated: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are stored as they are."""
    return {name: value for name, value in validated.items() if name not in ("secret_headers", "auth")}


def _seal(subscription: Subscription, validated: dict[str, Any]) -> None:
    """Encrypt the fields that are not into the subscription, unsaved."""
    if "secret_headers" in validated:
        subscription.set_secret_headers(validated["secret_headers"])
    if "auth" in validated:
        subscription.set_auth(validated["auth"])


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
        subscription = Subscription(**_plain(validated_data))
        subscription.set_secret(self.told_secret)
        _seal(subscription, validated_data)
        subscription.save()
        return subscription

    def to_representation(self, instance: Subscription) -> dict[str, Any]:
        return SubscriptionSerializer(instance).data | {"secret": self.told_secret}


class ChangedSubscriptionSerializer(SubscriptionSerializer):
    """What may be changed of a subscription: the fields given, and no others."""

    refusals: ClassVar[dict[str, str]] = {
        "tenant": "A subscription stays with its tenant.",
        "secret": "POST /subscriptions/{id}/rotate-secret changes the secret.",  # nosec B105 - words, no secret
        "status": "POST /subscriptions/{id}/pause, resume, enable and disable change the status.",
    }

    class Meta(SubscriptionSerializer.Meta):
        read_only_fields = (*SubscriptionSerializer.Meta.read_only_fields, "tenant")

    def update(self, instance: Subscription, validated_data: dict[str, Any]) -> Subscription:
        for name, value in _plain(validated_data).items():
            setattr(instance, name, value)
        _seal(instance, validated_data)
        if validated_data:
            # Only what was given: the engine keeps its own notes in the same row.
            instance.save(update_fields=list(validated_data))
        return instance

    def to_representation(self, instance: Subscription) -> dict[str, Any]:
        return dict(SubscriptionSerializer(instance).data)


class ReasonSerializer(StrictFieldsMixin, serializers.Serializer[Any]):
    """Why a subscription is paused, resumed, enabled or disabled."""

    reason = serializers.CharField(
        required=False,
        allow_blank=True,
        default="",
        max_length=MAX_REASON_LENGTH,
        help_text="For people; shown as `status_reason`.",
    )


class RotationSerializer(StrictFieldsMixin, serializers.Serializer[Any]):
    """How to change a secret."""

    overlap_seconds = serializers.IntegerField(
        min_value=0,
        max_value=int(LONGEST_OVERLAP.total_seconds()),
        default=int(USUAL_OVERLAP.total_seconds()),
        help_text="How long the present secret signs and verifies beside the new one. 0 ends it at once.",
    )
    secret = serializers.CharField(
        required=False,
        trim_whitespace=False,
        max_length=secrets.MAX_LENGTH,
        validators=[validate_secret],
        help_text="The new secret; made if not given.",
    )
