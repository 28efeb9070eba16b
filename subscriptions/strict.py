"""Bodies that are taken as they are meant: no unknown fields, no values of another JSON type."""

from collections.abc import Iterable
from typing import Any, ClassVar

from rest_framework import serializers

# What DRF would turn into what it wants: 5 into "5", "5" into 5, "yes" and 1 into true.
JSON_TYPES: dict[type[serializers.Field[Any, Any, Any, Any]], tuple[type, ...]] = {
    serializers.CharField: (str,),
    serializers.UUIDField: (str,),
    serializers.BooleanField: (bool,),
    serializers.IntegerField: (int, float),
    serializers.FloatField: (int, float),
}

# A body has room for so many unknown fields that telling of all would take seconds.
MOST_TOLD = 100

# None that is looked at item by item may have more than 250 items. A body has room for half a million, and to
# look at each, and to say of each what is wrong with it, would take half a minute and 500 MB.
MOST_ITEMS = 500
TOO_MANY_ITEMS = f"There are more than {MOST_ITEMS} items."


class StrictFieldsMixin:
    """Refuse fields that the serializer does not take, so that a typo is never silently dropped.

    And refuse values of another JSON type than documented, instead of converting them. Texts are
    taken as they are, with the spaces around them.
    """

    # Why a field that is known is not taken here, in words.
    refusals: ClassVar[dict[str, str]] = {}

    def get_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = super().get_fields()  # type: ignore[misc]
        for field in fields.values():
            text = field.child if isinstance(field, serializers.ListField) else field
            if isinstance(text, serializers.CharField):
                text.trim_whitespace = False
        return fields

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            finding = serializers.ErrorDetail("Give a JSON object.", code="invalid")
            raise serializers.ValidationError({"non_field_errors": [finding]})
        writable = {name: field for name, field in self.fields.items() if not field.read_only}  # type: ignore[attr-defined]
        if refused := sorted(data.keys() - writable.keys())[:MOST_TOLD]:
            raise serializers.ValidationError({name: self._refusal(name) for name in refused})
        if long := [name for name, value in data.items() if _has_too_many(writable[name], value)]:
            finding = serializers.ErrorDetail(TOO_MANY_ITEMS, code="max_length")
            raise serializers.ValidationError({name: [finding] for name in long})
        found = {
            name: finding for name, value in data.items() if (finding := _type_findings(writable[name], value))
        }
        try:
            value = super().to_internal_value(data)  # type: ignore[misc]
        except serializers.ValidationError as error:
            raise serializers.ValidationError(_merged(error.detail, found)) from None
        if found:
            raise serializers.ValidationError(found)
        return value

    def _refusal(self, name: str) -> serializers.ErrorDetail:
        if name in self.refusals:
            return serializers.ErrorDetail(self.refusals[name], code="read_only")
        if name in self.fields:  # type: ignore[attr-defined]
            return serializers.ErrorDetail("Only the service sets this field.", code="read_only")
        return serializers.ErrorDetail("This field is not known.", code="unknown")


def _has_too_many(field: Any, value: Any) -> bool:
    is_by_item = isinstance(field, serializers.ListField | serializers.DictField)
    return is_by_item and isinstance(value, list | dict) and len(value) > MOST_ITEMS


def _type_findings(field: Any, value: Any) -> Any:
    """Return what is wrong with the JSON type of a value, in DRF's form; nothing if it is right, or null."""
    if isinstance(field, serializers.ListField) and isinstance(value, list):
        return _findings_within(field.child, enumerate(value))
    if isinstance(field, serializers.DictField) and isinstance(value, dict):
        return _findings_within(field.child, value.items())
    wanted = next((types for kind, types in JSON_TYPES.items() if isinstance(field, kind)), None)
    if wanted is None or value is None:
        return None
    is_right = isinstance(value, wanted) and isinstance(value, bool) == (wanted == (bool,))
    return None if is_right else [serializers.ErrorDetail(field.error_messages["invalid"], code="invalid")]


def _findings_within(child: Any, items: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    return {step: finding for step, item in items if (finding := _type_findings(child, item))}


def _merged(findings: Any, others: dict[Any, Any]) -> dict[Any, Any]:
    """Add what the types alone tell; item by item where a list was looked at twice."""
    merged = dict(findings)
    for name, other in others.items():
        both_by_item = isinstance(other, dict) and isinstance(merged.get(name), dict)
        merged[name] = merged[name] | other if both_by_item else other
    return merged
