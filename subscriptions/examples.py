"""Examples for the API documentation: one subscription, from its creation on."""

from typing import Any

from drf_spectacular.utils import OpenApiExample

NEW: dict[str, Any] = {
    "tenant": "acme",
    "target_url": "https://receiver.example.com/webhooks",
    "description": "Invoices for the ledger",
    "event_types": ["invoice.*"],
    "filter": {"body": {"total": {"$gte": 100}}},
}

SHOWN: dict[str, Any] = {
    "id": "019ab3cf-11d2-7b0e-8a6c-5f0d9e2c7a31",
    "tenant": "acme",
    "description": "Invoices for the ledger",
    "metadata": {},
    "target_url": "https://receiver.example.com/webhooks",
    "event_types": ["invoice.*"],
    "filter": {"body": {"total": {"$gte": 100}}},
    "headers": {},
    "secret_header_names": [],
    "auth": None,
    "ca_certificates": "",
    "retry_schedule": [120, 240, 480, 960, 1920],
    "timeout_seconds": 15,
    "max_in_flight": 32,
    "rate_limit": None,
    "ordered": False,
    "status": "active",
    "status_reason": "",
    "circuit": "closed",
    "circuit_probe_at": None,
    "failing_since": None,
    "disable_at": None,
    "secret_hint": "…ISw=",  # nosec B105
    "previous_secret_until": None,  # nosec B105
    "created_at": "2026-11-24T08:50:03.142857Z",
    "updated_at": "2026-11-24T08:50:03.142857Z",
}

NEXT_SECRET = "whsec_2f8Zk0Yb7Jm1VnQw5tRx9cLdPa4Hs6Ue3GiKoNyTb1E="  # noqa: S105  # nosec B105 - an example
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwCgH5Y5C3ISw="  # noqa: S105  # nosec B105 - an example

CHANGED = SHOWN | {"updated_at": "2026-11-24T08:55:21.718281Z"}
PAUSED = CHANGED | {"status": "paused", "status_reason": "Maintenance until noon"}
DISABLED = CHANGED | {"status": "disabled", "status_reason": "Left the beta"}
RESUMED = CHANGED | {"status_reason": "Maintenance is over"}
ENABLED = CHANGED | {"status_reason": "Back in the beta"}

# An hour before the earlier secret ends.
ROTATED = CHANGED | {
    "secret_hint": "…b1E=",  # nosec B105
    "previous_secret_until": "2026-11-24T09:55:21.718281Z",  # nosec B105
    "secret": NEXT_SECRET,
}


def asked(value: Any) -> OpenApiExample:
    """Return the example of a request body."""
    return OpenApiExample("Request", value, request_only=True)


def answered(value: Any, *, status: int = 200) -> OpenApiExample:
    """Return the example of an answer."""
    return OpenApiExample("Answer", value, response_only=True, status_codes=[str(status)])
