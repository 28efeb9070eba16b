"""What a subscription's fields may hold, in words for who wrote them."""

from typing import Any

import msgspec
from django.conf import settings
from django.core.exceptions import ValidationError

from subscriptions import addresses, event_types, secrets, signing

MAX_METADATA_BYTES = 4096


def validate_target_url(value: str) -> None:
    try:
        addresses.check_url(value, addresses.parse_networks(settings.ALLOWED_NETWORKS))
    except addresses.RefusedURL as refused:
        raise ValidationError(str(refused), code="refused_url") from None


def validate_event_type_pattern(value: str) -> None:
    if not event_types.is_pattern(value):
        raise ValidationError(
            f"“{value}” is not an event type (invoice.paid), a wildcard (invoice.*) or *.",
            code="invalid_event_type",
        )


def validate_event_type(value: str) -> None:
    if not event_types.is_event_type(value):
        raise ValidationError(
            "An event type has letters, digits, _ and -, in segments joined by dots.", code="invalid_event_type"
        )


def validate_metadata(value: Any) -> None:
    if not isinstance(value, dict):
        raise ValidationError("The metadata is a JSON object.", code="invalid_metadata")
    if len(msgspec.json.encode(value)) > MAX_METADATA_BYTES:
        raise ValidationError(f"The metadata has at most {MAX_METADATA_BYTES} bytes.", code="invalid_metadata")


def validate_secret(value: str) -> None:
    if not 1 <= len(value) <= secrets.MAX_LENGTH:
        raise ValidationError(f"A secret has 1 to {secrets.MAX_LENGTH} characters.", code="invalid_secret")
    try:
        signing.key_of(value)
    except ValueError as error:
        raise ValidationError(str(error), code="invalid_secret") from None
