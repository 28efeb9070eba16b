from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db.models.functions import Now
from redis import Redis

from deliveries.bulk import Operation
from deliveries.models import Event, Heartbeat, WebhookRequest
from subscriptions.catalog import EventType
from subscriptions.etags import etag_of
from subscriptions.models import ApiKey
from tests.certificates import make_pair
from tests.contract.rows import Rows, cursor_at

PAIR = make_pair(None)

# What a schema cannot say of a field.
VALUES = {
    "target_url": "https://receiver.example.com/hook",
    "token_url": "https://identity.example.com/token",
    "secret": "a secret",
    "name": "invoice.voided",
    "schema": {"description": "Anything."},
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


@pytest.fixture
def rows(
    make_subscription: Callable[..., Any], make_request: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Rows]:
    """One row of each kind, and a key with every scope that sees them, and /metrics."""
    subscription = make_subscription()
    request = make_request(subscription)
    failed = make_request(subscription)
    WebhookRequest.objects.filter(id=failed.id).update(status="failed", next_attempt_at=None, settled_at=Now())
    event = Event.objects.create(event_type="invoice.paid", payload=b'{"n": 1}')
    operation = Operation.objects.create(kind="recover")
    event_type = EventType.objects.create(name="invoice.paid")
    for kind in Heartbeat.Kind:
        Heartbeat.objects.beat(kind, kind)
    _, text = ApiKey.objects.create_key("contract", ("publish", "read", "manage"), tenant=None, valid_for=None)
    monkeypatch.setattr(settings, "METRICS_TOKEN", text)
    path = {
        "subscription_id": str(subscription.id),
        "request_id": str(request.id),
        "event_id": str(event.id),
        "name": event_type.name,
        "operation_id": str(operation.id),
    }
    paths = {"/requests/{request_id}/replay": {"request_id": str(failed.id)}}
    present = {
        "subscription_id": str(subscription.id),
        "subscription": str(subscription.id),
        "cursor": cursor_at(request.id),
        "If-Match": etag_of(subscription),
    }
    with Redis.from_url(settings.REDIS_URL) as redis:
        rows = Rows(api_key=text, paths=paths, path=path, bodies=BODIES, values=VALUES | present, redis=redis)
        yield rows
    # Else nothing was tried but refusals.
    assert rows.was_accepted or not rows.statuses, rows.statuses
