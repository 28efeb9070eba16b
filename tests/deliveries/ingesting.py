"""What the tests of POST /ingest share: the bodies they send, and the refusals they get."""

import uuid

from deliveries.models import WebhookRequest
from tests.expected import REQUEST_ID, problem

DISABLED = problem(409, "subscription_disabled", "This subscription is disabled.")
NOT_FOUND = problem(404, "not_found", "There is no such subscription.")
UNAVAILABLE = problem(503, "unavailable", "The service cannot store anything right now. Try again.")
MISSING_SIGNATURE = problem(
    401,
    "signature_missing",
    "Sign the raw request body and send X-Webhook-Signature: sha256=<hex HMAC-SHA256>.",
)
WRONG_SIGNATURE = problem(
    401,
    "signature_invalid",
    "The signature does not match the raw request body under this subscription's secret. "
    "The key of a whsec_ secret is what its base64 part decodes to.",
)
MISSING = uuid.UUID("0198c5b6-3b7e-7bd1-8f0e-5a8d7a0a1b2c")


def assert_refused(answer, document):
    assert answer.json() == document
    assert answer.status == document["status"]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Request-Id"] == REQUEST_ID
    assert not WebhookRequest.objects.exists()


def stored_payload() -> bytes:
    return bytes(WebhookRequest.objects.get().payload)


def envelope(**changes: str | None) -> bytes:
    """Return the body of an ingest call for MISSING; each value is JSON text, None leaves the member out."""
    members = {"subscription_id": f'"{MISSING}"', "event_type": '"invoice.paid"', "body": "{}"} | changes
    return (
        "{" + ",".join(f'"{name}":{value}' for name, value in members.items() if value is not None) + "}"
    ).encode()
