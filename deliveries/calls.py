"""Build calls: what a receiver gets (the table in README.md), and what its subscription adds to it."""

import uuid
from datetime import datetime
from typing import Any

from deliveries.leases import Target
from deliveries.transport import Call
from subscriptions import headers, signing


def build(
    target: Target,
    *,
    tag: Any,
    request_id: uuid.UUID,
    event_type: str,
    attempt_number: int,
    payload: bytes,
    at: datetime,
) -> Call:
    """Build the call of one attempt, signed now for the moment `at`.

    The service's own headers win over those of the subscription. Raises what Target's
    properties raise: stored secrets that cannot be read, or headers that cannot be sent.
    """
    keys = target.signing_keys
    timestamp = int(at.timestamp())
    extras = target.extras
    own = {
        "Content-Type": "application/json",
        "webhook-id": str(request_id),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signing.sign_standard(
            keys, message_id=str(request_id), timestamp=timestamp, body=payload
        ),
        "X-Webhook-Signature": signing.sign_body(keys[0], payload),
        "X-Webhook-Event": event_type,
        "X-Webhook-Attempt": str(attempt_number),
    }
    sent = headers.merged(extras.headers, own) if extras.headers else own
    return Call(
        tag=tag,
        url=target.url,
        headers=[f"{name}: {value}" for name, value in sent.items()],
        body=payload,
        timeout_seconds=target.timeout_seconds,
        certificates=extras.certificates,
        credentials=extras.credentials,
        customer=target.customer,
    )
