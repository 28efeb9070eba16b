"""Examples for the API documentation: one event, the request that it made, and how that went."""

from typing import Any

from deliveries.outcome import HINTS, ErrorClass

SUBSCRIPTION_ID = "019ab3cf-11d2-7b0e-8a6c-5f0d9e2c7a31"
PAYLOAD = {"invoice": 4711, "total": 199.9}

EVENT: dict[str, Any] = {
    "id": "019ab3d0-7a51-7c22-9d3e-0c4a5d1f2b10",
    "tenant": "acme",
    "event_type": "invoice.paid",
    "published_at": "2026-11-24T08:51:04.271828Z",
    "findings": None,
}

REQUEST: dict[str, Any] = {
    "request_id": "019ab3d0-7a52-7f41-b2c8-91e6a4d03c55",
    "subscription_id": SUBSCRIPTION_ID,
    "event_id": EVENT["id"],
    "tenant": "acme",
    "event_type": "invoice.paid",
    "status": "failed",
    "status_reason": "",
    "hold_reason": None,
    "error": "http_5xx",
    "trigger": "initial",
    "received_at": "2026-11-24T08:51:04.271828Z",
    "settled_at": "2026-11-24T08:51:04.418211Z",
    "attempt_count": 1,
    "next_attempt_at": None,
}

ATTEMPT: dict[str, Any] = {
    "id": "019ab3d0-7ae4-7d10-a9b5-3f8e2c61d704",
    "attempt_number": 1,
    "trigger": "initial",
    "attempted_at": "2026-11-24T08:51:04.286900Z",
    "success": False,
    "status_code": 500,
    "response_ms": 131,
    "error": "http_5xx",
    "hint": HINTS[ErrorClass.HTTP_5XX],
    "dns_ms": 12,
    "connect_ms": 31,
    "tls_ms": 64,
    "first_byte_ms": 130,
}

LOGGED_ATTEMPT = ATTEMPT | {
    "response_headers": "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain",
    "response_body": "Internal Server Error",
}

# A test call is an attempt of no request, and not stored.
TRIAL = {"webhook_id": "019ab3d0-7a52-7f41-b2c8-91e6a4d03c55", "event_type": "invoice.paid"} | {
    name: value for name, value in LOGGED_ATTEMPT.items() if name not in ("id", "attempt_number", "trigger")
}

SHOWN_REQUEST = REQUEST | {"findings": None, "attempts": [LOGGED_ATTEMPT], "payload": PAYLOAD}

REPLAYED = REQUEST | {
    "status": "pending",
    "error": None,
    "trigger": "replay",
    "settled_at": None,
    "next_attempt_at": "2026-11-24T09:30:00.161803Z",
}

CANCELED = REQUEST | {"status": "canceled", "status_reason": "Canceled over the API."}

SHOWN_EVENT = EVENT | {
    "payload": PAYLOAD,
    "request_count": 1,
    "requests": [
        {
            "request_id": REQUEST["request_id"],
            "subscription_id": SUBSCRIPTION_ID,
            "status": "failed",
            "status_reason": "",
            "attempt_count": 1,
            "error": "http_5xx",
        }
    ],
}

NOT_IN_STATUS = ("tenant", "status_reason", "error", "trigger", "settled_at", "payload")
REQUEST_STATUS = {name: value for name, value in SHOWN_REQUEST.items() if name not in NOT_IN_STATUS}

SUBSCRIPTION_STATUS = {
    "subscription_id": SUBSCRIPTION_ID,
    "attempts": [ATTEMPT | {"request_id": REQUEST["request_id"]}],
}

READY = {
    "database": "ok",
    "redis": "ok",
    "workers": "ok",
    "maintenance": "ok",
    "scheduler": "ok",
    "oldest_due_seconds": 0.02,
}
