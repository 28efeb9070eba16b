"""Fields of a subscription with rules of their own: headers, authentication, certificates, filter."""

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from subscriptions import addresses, auth, certificates, filters, headers
from subscriptions.models import Subscription


class HeadersField(serializers.DictField):
    """An object of header names and values."""

    child = serializers.CharField(trim_whitespace=False, max_length=headers.MAX_BYTES)

    def to_internal_value(self, data: Any) -> dict[str, str]:
        given: dict[str, str] = super().to_internal_value(data)
        try:
            headers.check_headers(given)
        except headers.RefusedHeader as refused:
            error = serializers.ErrorDetail(str(refused), code="refused_header")
            raise serializers.ValidationError({refused.name: [error]} if refused.name else [error]) from None
        return given


class AuthField(serializers.Field[Any, Any, Any, Any]):
    """How calls authenticate to the receiver: written whole, shown without its secrets."""

    default_error_messages = {"not_an_object": "Give an object with a type, or null."}

    def get_attribute(self, instance: Subscription) -> str | None:
        return instance.auth_type

    def to_representation(self, value: str) -> dict[str, str]:
        return {"type": value}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("not_an_object")
        try:
            auth.check(auth.of(data), addresses.parse_networks(settings.ALLOWED_NETWORKS))
        except auth.RefusedAuth as refused:
            raise serializers.ValidationError(str(refused), code="refused_auth") from None
        return dict(data)


class CertificatesField(serializers.CharField):
    """One PEM certificate or more, or nothing."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_blank=True, trim_whitespace=False, max_length=certificates.MAX_LENGTH, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        pem = super().to_internal_value(data)
        try:
            if pem:
                certificates.check_certificates(pem)
        except certificates.RefusedCertificate as refused:
            raise serializers.ValidationError(str(refused), code="refused_certificate") from None
        return pem


@extend_schema_field({"type": "object", "additionalProperties": {}})
class ObjectField(serializers.JSONField):
    """Any JSON object."""


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": {},
        "examples": [{"body": {"total": {"$gte": 100}, "currency": {"$in": ["EUR", "CHF"]}}}],
    }
)
class FilterField(serializers.JSONField):
    """Conditions over an event."""

    def to_internal_value(self, data: Any) -> Any:
        try:
            filters.check(data)
        except filters.InvalidFilter as refused:
            raise serializers.ValidationError(_at(refused.pointer, str(refused))) from None
        return data


def _at(pointer: str, words: str) -> Any:
    """Return what DRF takes for an error at this place (RFC 6901) of a field's value."""
    error: Any = [serializers.ErrorDetail(words, code="invalid_filter")]
    for step in reversed(pointer.split("/")[1:]):
        error = {step.replace("~1", "/").replace("~0", "~"): error}
    return error
