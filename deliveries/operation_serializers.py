"""Operations in JSON, in and out."""

from functools import cached_property
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from deliveries.bulk import Operation
from deliveries.bulk_runs import USUAL_STATUSES
from deliveries.operations import SETTLED_STATUSES
from deliveries.request_serializers import SelectionMixin
from deliveries.serializers import ERROR_CHOICES
from subscriptions.api_keys import ApiKey
from subscriptions.authentication import tenant_of
from subscriptions.lists import FilterSerializer
from subscriptions.strict import StrictFieldsMixin

UNDELIVERED_STATUSES = tuple(status for status in SETTLED_STATUSES if status != "delivered")
NO_FILTER = "Say which requests: give at least one filter besides `status`."
BACKWARDS = "The end is not after the beginning."


class StatusesField(serializers.ListField):
    """One status, or a list of them."""

    def __init__(self, choices: tuple[str, ...]) -> None:
        super().__init__(
            child=serializers.ChoiceField(choices=choices),
            required=False,
            allow_empty=False,
            max_length=len(choices),
            help_text=f"One status or several; by default {' and '.join(USUAL_STATUSES)}.",
        )

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, str):  # not as a list of one: what is wrong with it is said of the field
            return [self.child.run_validation(data)]
        return super().to_internal_value(data)


def statuses_schema(choices: tuple[str, ...]) -> dict[str, Any]:
    one = {"type": "string", "enum": list(choices)}
    return {"oneOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": len(choices)}]}


@extend_schema_field(statuses_schema(UNDELIVERED_STATUSES))
class UndeliveredField(StatusesField):
    pass


@extend_schema_field(statuses_schema(SETTLED_STATUSES))
class SettledField(StatusesField):
    pass


class DryRunMixin(serializers.Serializer[Any]):
    dry_run = serializers.BooleanField(default=False, help_text="Only count; nothing is stored or delivered.")


class RecoverSerializer(StrictFieldsMixin, DryRunMixin):
    """Which requests of a subscription to deliver again."""

    since = serializers.DateTimeField(help_text="Received at this time or later.")
    until = serializers.DateTimeField(required=False, help_text="Received before this time; now if not given.")
    status = UndeliveredField(UNDELIVERED_STATUSES)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "until" in attrs and attrs["until"] <= attrs["since"]:
            raise serializers.ValidationError({"until": serializers.ErrorDetail(BACKWARDS, code="backwards")})
        return attrs


class NewOperationSerializer(StrictFieldsMixin, SelectionMixin, DryRunMixin):
    """What to do, and to which requests: those that fit every filter. The filters are those of GET /requests."""

    kind = serializers.ChoiceField(
        choices=[Operation.Kind.REPLAY.value], help_text="`replay`: deliver them again."
    )
    status = SettledField(SETTLED_STATUSES)
    error = serializers.ChoiceField(
        choices=ERROR_CHOICES, required=False, help_text="Not delivered, and the last attempt ended like this."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not set(attrs) - {"kind", "dry_run", "status"}:
            raise serializers.ValidationError(NO_FILTER, code="no_filter")
        after, before = attrs.get("received_after"), attrs.get("received_before")
        if after is not None and before is not None and before <= after:
            raise serializers.ValidationError(
                {"received_before": serializers.ErrorDetail(BACKWARDS, code="backwards")}
            )
        return attrs


class CountSerializer(serializers.Serializer[Any]):
    """What an operation would bring back, if it began now."""

    count = serializers.IntegerField()


class OperationFilterSerializer(FilterSerializer):
    """The filters of GET /operations."""

    kind = serializers.ChoiceField(choices=Operation.Kind.choices, required=False)
    status = serializers.ChoiceField(choices=Operation.Status.choices, required=False)


class OperationSerializer(serializers.ModelSerializer[Operation]):
    """A recover or a bulk replay, and how far it has come."""

    kind = serializers.ChoiceField(choices=Operation.Kind.choices)
    status = serializers.ChoiceField(choices=Operation.Status.choices)
    selection = serializers.DictField(help_text="The filters, as GET /requests names them.")
    total = serializers.IntegerField(allow_null=True, help_text="How many were selected; null until it begins.")
    done = serializers.IntegerField(
        help_text="How many it has brought back: less than the total in the end, if some were purged, replayed by "
        "others or of a subscription that was disabled meanwhile."
    )
    requested_by = serializers.SerializerMethodField(
        help_text="The API key or the user of the admin that asked for it. To a key that is bound to a tenant "
        "this is empty, unless one of the tenant's keys asked."
    )

    class Meta:
        model = Operation
        fields = (
            "id",
            "kind",
            "tenant",
            "selection",
            "status",
            "status_reason",
            "total",
            "done",
            "requested_by",
            "created_at",
            "started_at",
            "finished_at",
        )

    def get_requested_by(self, operation: Operation) -> str:
        is_told = self._own_keys is None or operation.requested_by in self._own_keys
        return operation.requested_by if is_told else ""

    @cached_property
    def _own_keys(self) -> set[str] | None:
        """The names of the caller's tenant's keys; None means an operator, who is told every name."""
        tenant = tenant_of(self.context["request"])
        return None if tenant is None else {str(key)[:255] for key in ApiKey.objects.filter(tenant=tenant)}
