"""What answers look like: the parts that many whole-body comparisons share."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from deliveries.models import DeliveryAttempt, WebhookRequest
from subscriptions.models import Subscription

REQUEST_ID = "id-of-this-test"

EVENT_TYPE_RULE = "An event type has letters, digits, _ and -, in segments joined by dots."
NO_API_KEY_DETAIL = "This call needs an API key: send it as Authorization: Bearer whk_…"


def problem(status: int, code: str, detail: str, *errors: dict[str, str]) -> dict[str, Any]:
    """Return the whole problem document (RFC 9457) of a call that was made with REQUEST_ID."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": REQUEST_ID,
    }
    return document | ({"errors": list(errors)} if errors else {})


def invalid(*errors: tuple[str, str, str]) -> dict[str, Any]:
    """Return the problem document for bad input, with each error's pointer, code and detail."""
    names = ("pointer", "code", "detail")
    found = [dict(zip(names, error, strict=True)) for error in errors]
    return problem(400, "invalid", "The request is not valid; see errors.", *found)


def no_scope(scope: str) -> dict[str, Any]:
    """Return the problem document of a call whose API key lacks the scope that it needs."""
    return problem(403, "permission_denied", f"This call needs an API key with the scope `{scope}`.")


def rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def subscription_body(subscription: Subscription, **given: Any) -> dict[str, Any]:
    """Return the whole answer that shows a new subscription, but for what was `given`."""
    usual = {
        "id": str(subscription.id),
        "tenant": "",
        "description": "",
        "metadata": {},
        "target_url": subscription.target_url,
        "event_types": [],
        "filter": None,
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
        "secret_hint": subscription.secret_hint,
        "previous_secret_until": None,
        "created_at": rfc3339(subscription.created_at),
        "updated_at": rfc3339(subscription.updated_at),
    }
    return usual | given


def request_body(request: WebhookRequest, **given: Any) -> dict[str, Any]:
    """Return the whole answer that shows a request which make_request stored, but for what was `given`."""
    usual = {
        "request_id": str(request.id),
        "subscription_id": str(request.subscription_id),
        "event_id": None,
        "tenant": "",
        "event_type": "invoice.paid",
        "status": "pending",
        "status_reason": "",
        "hold_reason": None,
        "error": None,
        "trigger": "initial",
        "received_at": rfc3339(request.received_at),
        "settled_at": None,
        "attempt_count": 0,
        "next_attempt_at": rfc3339(request.received_at),
    }
    return usual | given


def attempt_body(attempt: DeliveryAttempt, **given: Any) -> dict[str, Any]:
    """Return what answers say of an attempt that make_attempt logged, but for what was `given`."""
    usual = {
        "id": str(attempt.id),
        "attempt_number": attempt.attempt_number,
        "trigger": attempt.trigger,
        "attempted_at": rfc3339(attempt.attempted_at),
        "success": True,
        "status_code": 200,
        "response_ms": 12,
        "error": None,
        "hint": None,
        "dns_ms": None,
        "connect_ms": None,
        "tls_ms": None,
        "first_byte_ms": None,
    }
    return usual | given
