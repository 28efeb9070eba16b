from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db.models.functions import Now
from pytest_django.fixtures import Settings
from redis import Redis

from deliveries.bulk import Operation
from deliveries.models import Event, Heartbeat, WebhookRequest
from subscriptions.catalog import EventType
from subscriptions.etags import etag_of
from tests.contract.rows import Rows, new_api_key
from tests.contract.values import BODIES, VALUES, cursor_at


@pytest.fixture
def api_key(db: None) -> str:
    return new_api_key()


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    with Redis.from_url(settings.REDIS_URL) as connection:
        yield connection


@pytest.fixture
def rows(
    api_key: str,
    redis: Redis,
    make_subscription: Callable[..., Any],
    make_request: Callable[..., Any],
    settings: Settings,
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
    settings.METRICS_TOKEN = api_key
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
    rows = Rows(api_key=api_key, paths=paths, path=path, bodies=BODIES, values=VALUES | present, redis=redis)
    yield rows
    # Else nothing was tried but refusals.
    assert rows.was_accepted or not rows.statuses, rows.statuses
