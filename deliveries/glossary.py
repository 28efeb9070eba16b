"""What the fields mean that many answers share: one word per idea, so one meaning per name."""

from typing import Any

FIELDS = {
    "id": "A UUID; those made later sort later.",
    "request_id": "The webhook request: one payload for one subscription. Deliveries carry it as `webhook-id`.",
    "subscription_id": "The subscription.",
    "event_id": "The published event; null for what came through `POST /ingest`.",
    "tenant": "The customer it belongs to. Of an operation, null is every one.",
    "event_type": "What happened, such as `invoice.paid`.",
    "name": "The event type, such as `invoice.paid`.",
    "description": "For people.",
    "kind": "`recover` what one subscription missed, or `replay` what fits the filters.",
    "status": "Where it stands.",
    "status_reason": "Why it is in this status, in words; empty if there is nothing to say.",
    "published_at": "When it was stored.",
    "received_at": "When it was stored.",
    "settled_at": "When it was over, one way or the other; null while it is pending.",
    "next_attempt_at": "It is not tried before this time; null once it is settled. During a call it is when "
    "another worker would make it again, if this one were gone.",
    "created_at": "When it was made.",
    "updated_at": "When it was last changed.",
    "started_at": "When it began; null if it has not.",
    "finished_at": "When it was over; null if it is not.",
    "attempt_count": "Calls that were made for it, replays included.",
    "attempts": "The calls that were made: the last 1,000 at most.",
    "attempt_number": "Counted from 1 for each request, replays included.",
    "attempted_at": "When the call began.",
    "trigger": "Why the call was made.",
    "success": "Whether the receiver answered 2xx, which delivers.",
    "status_code": "Of the receiver's answer; null if there was none.",
    "error": "How the call failed; null if it did not.",
    "response_ms": "The whole call, in milliseconds, `dns_ms` included.",
    "dns_ms": "To find the address; null if a connection was used again.",
    "connect_ms": "From there until the connection stood; null if one was used again.",
    "tls_ms": "From the same moment until TLS stood; null without TLS, or if a connection was used again.",
    "first_byte_ms": "From the same moment until the answer began; null if there was none.",
    "response_headers": "Of the receiver's answer, as they came.",
    "response_body": "Of the receiver's answer, its first 64 KB.",
    "circuit_probe_at": "When an open circuit lets one call through to see whether the receiver is back.",
    "failing_since": "Since when there has been nothing but failures; null if there has not.",
    "secret_hint": "How the secret ends, to know it by.",  # nosec B105
    "requests": "The webhook requests that it made.",
    "events": "In the order of the batch.",
    "subscriptions": "One entry for each subscription of the tenant.",
    "result": "What would become of it.",
    "reason": "Why it would not be delivered now; null if it would.",
    "count": "How many requests it would bring back.",
    "next": "The URL of the next page; null on the last.",
    "previous": "The URL of the page before; null on the first.",
    "results": "The page.",
    "oldest_due_seconds": "For how long the oldest request has been due that may be delivered; null if none is.",
}


def explain(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """Say what a field means where its serializer does not; drf-spectacular's postprocessing hook."""
    for schema in result["components"]["schemas"].values():
        for name, field in schema.get("properties", {}).items():
            if name in FIELDS:
                field.setdefault("description", FIELDS[name])
    return result
