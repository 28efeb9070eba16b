"""What a subscription's fields may hold, in words for who wrote them."""

import json
import re
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError

from subscriptions import addresses, event_types, jsonb, secrets, signing

MAX_METADATA_BYTES = 4096
MAX_METADATA_DEPTH = 20
MAX_JSON_BYTES = 65_536

# As JSON writes it; the backslash that begins it is not itself written by one.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def validate_target_url(value: str) -> None:
    try:
        addresses.check_url(value, addresses.parse_networks(settings.ALLOWED_NETWORKS))
    except addresses.RefusedURL as refused:
        raise ValidationError(str(refused), code="refused_url") from None


def validate_event_type_pattern(value: str) -> None:
    if not event_types.is_pattern(value):
        # Of an item of an array Django formats the text, twice: a % would be taken for a place to fill in.
        shown = value.replace("%", r"\u0025")
        raise ValidationError(
            f"“{shown}” is not an event type (invoice.paid), a wildcard (invoice.*) or *.",
            code="invalid_event_type",
        )


def validate_event_type(value: str) -> None:
    if not event_types.is_event_type(value):
        raise ValidationError(event_types.RULE, code="invalid_event_type")


def validate_metadata(value: Any) -> None:
    if not isinstance(value, dict):
        raise ValidationError("The metadata is a JSON object.", code="invalid_metadata")
    if any("\0" in text for text in _texts(value, 0)):
        raise ValidationError("The metadata has no NUL character in it.", code="invalid_metadata")
    if jsonb.size_of(value, ensure_ascii=False, separators=(",", ":")) > MAX_METADATA_BYTES:
        message = f"The metadata has at most {MAX_METADATA_BYTES} bytes, with its numbers written out."
        raise ValidationError(message, code="invalid_metadata")


def _texts(value: Any, depth: int) -> Iterator[str]:
    """Yield every text and name in a JSON value; raise ValidationError if it is too deep."""
    if depth > MAX_METADATA_DEPTH:
        message = f"The metadata is at most {MAX_METADATA_DEPTH} levels deep."
        raise ValidationError(message, code="invalid_metadata")
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, depth + 1)
    elif isinstance(value, dict):
        yield from value
        for member in value.values():
            yield from _texts(member, depth + 1)


def validate_storable(value: Any) -> None:
    """Raise ValidationError for what PostgreSQL does not take as JSON."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):  # NaN, a huge integer, a lone surrogate, deep nesting
        raise ValidationError("This JSON cannot be stored.", code="invalid_json") from None
    if jsonb.size_of(value, ensure_ascii=False) > MAX_JSON_BYTES:
        message = f"This JSON has more than {MAX_JSON_BYTES} bytes, with its numbers written out."
        raise ValidationError(message, code="invalid_json")
    if _NUL.search(text):
        raise ValidationError("This JSON has a NUL character in it.", code="invalid_json")


def validate_secret(value: str) -> None:
    if not 1 <= len(value) <= secrets.MAX_LENGTH:
        raise ValidationError(f"A secret has 1 to {secrets.MAX_LENGTH} characters.", code="invalid_secret")
    try:
        signing.key_of(value)
    except ValueError as error:
        raise ValidationError(str(error), code="invalid_secret") from None
