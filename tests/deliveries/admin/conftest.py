"""What the pages of the admin are shown with."""

from collections.abc import Callable

import pytest
from django.utils import timezone

from deliveries.models import DeliveryAttempt, Event, WebhookRequest


@pytest.fixture
def make_settled(make_request) -> Callable[..., WebhookRequest]:
    """Store a request that is settled: failed, unless another status is given."""

    def make(subscription, status: str = "failed", **fields) -> WebhookRequest:
        fields = {"settled_at": timezone.now(), "next_attempt_at": None, "attempt_count": 1} | fields
        return make_request(subscription, status=status, **fields)

    return make


@pytest.fixture
def make_attempt(db: None) -> Callable[..., DeliveryAttempt]:
    def make(request: WebhookRequest, attempt_number: int = 1, **fields) -> DeliveryAttempt:
        fields = {
            "trigger": "initial",
            "attempted_at": timezone.now(),
            "success": False,
            "status_code": 500,
            "error": "http_5xx",
            "response_ms": 12,
        } | fields
        return DeliveryAttempt.objects.create(
            request=request, subscription_id=request.subscription_id, attempt_number=attempt_number, **fields
        )

    return make


@pytest.fixture
def make_event(db: None) -> Callable[..., Event]:
    def make(payload: bytes = b'{"n": 1}', **fields) -> Event:
        return Event.objects.create(event_type="invoice.paid", payload=payload, **fields)

    return make
