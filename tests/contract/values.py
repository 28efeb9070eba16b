"""What a schema cannot say of the values that are sent."""

import base64
from collections.abc import Mapping, MutableMapping
from copy import copy
from typing import Any
from urllib.parse import urlencode

from tests.certificates import make_pair

PAIR = make_pair(None)

# By the names of fields and parameters.
VALUES = {
    "target_url": "https://receiver.example.com/hook",
    "token_url": "https://identity.example.com/token",
    "secret": "a secret",
    "name": "invoice.voided",
    "schema": {"description": "Anything."},
    # Where there may be no schema, none can be enforced.
    "validation": "warn",
    "filter": {"body": {"total": {"$gte": 100}}},
    "headers": {"X-Team": "billing"},
    "secret_headers": {"X-Key": "a key"},
    "header": "X-Key",
    "value": "a key",
    "token": "a-token",
    "username": "somebody",
    "password": "a password",
    "client_id": "a-client",
    "client_secret": "a-secret",
    "scope": "webhooks",
    "since": "2026-01-01T00:00:00Z",
    "until": "2026-02-01T00:00:00Z",
    "received_after": "2026-01-01T00:00:00Z",
    "received_before": "2026-02-01T00:00:00Z",
    "certificate": PAIR.certificate,
    "private_key": PAIR.private_key,
    "ca_certificates": PAIR.certificate,
}

# A replay of many has to say of which.
BODIES = {"/operations": {"event_type": "invoice.paid"}}


def with_values(given: Any, values: Mapping[str, Any]) -> Any:
    """Return what is given with these values by name, wherever it has one of the same type."""
    if isinstance(given, list):
        return [with_values(item, values) for item in given]
    if isinstance(given, MutableMapping):
        changed = copy(given)
        for name, value in given.items():
            is_meant = name in values and type(values[name]) is type(value)
            changed[name] = values[name] if is_meant else with_values(value, values)
        return changed
    return given


def cursor_at(row_id: Any) -> str:
    """Return a cursor as `next` gives it out."""
    return base64.b64encode(urlencode({"p": row_id}).encode()).decode()
