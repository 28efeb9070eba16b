"""Both doors of POST /ingest, and what the tests of deliveries share."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from rest_framework.test import APIClient

from deliveries import tasks, worker
from deliveries.courier import Courier
from deliveries.models import DeliveryAttempt, WebhookRequest
from deliveries.transport import Transport
from tests import wsgi
from tests.conftest import signed_headers
from tests.deliveries.calling import make_transport
from tests.deliveries.database_clock import DatabaseClock
from tests.expected import REQUEST_ID
from tests.wsgi import Answer

# What it asserts is shown as what a test asserts is.
pytest.register_assert_rewrite("tests.deliveries.ingesting", "tests.deliveries.issuing")

PostIngest = Callable[..., Answer]


def post_to_view(body: bytes, headers: Mapping[str, str]) -> Answer:
    """Call the documented endpoint, a DRF view, through Django's test client."""
    response = Client(raise_request_exception=False).generic("POST", "/ingest", body, headers=dict(headers))
    return Answer(status=response.status_code, headers=dict(response.headers), body=response.content)


def post_to_wsgi(body: bytes, headers: Mapping[str, str]) -> Answer:
    """Call the door in front of Django, as a WSGI server does."""
    return wsgi.call("POST", "/ingest", body, headers)


DOORS = {"view": post_to_view, "wsgi": post_to_wsgi}


def _with_headers(door: Callable[[bytes, Mapping[str, str]], Answer]) -> PostIngest:
    def post(body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        given = signed_headers(body) if headers is None else headers
        return door(body, {"Content-Type": "application/json", "Request-Id": REQUEST_ID} | dict(given))

    return post


@pytest.fixture(params=DOORS)
def post_ingest(request: pytest.FixtureRequest, db: None) -> PostIngest:
    """Post to one door after the other; `headers` are those of a signed call unless given."""
    return _with_headers(DOORS[request.param])


@pytest.fixture
def post_ingest_at_each_door(db: None) -> Callable[..., dict[str, Answer]]:
    """Post the same to both doors; returns the answer of each by its name."""
    doors = {name: _with_headers(door) for name, door in DOORS.items()}
    return lambda body, headers=None: {name: post(body, headers) for name, post in doors.items()}


@pytest.fixture
def publish(client_with_key: APIClient) -> Callable[..., HttpResponse]:
    """Post a body, as bytes, as text or as what is to be JSON, to a path below /events."""

    def post(body: Any, path: str = "", client: APIClient = client_with_key, **headers: str) -> HttpResponse:
        data = body if isinstance(body, bytes | str) else json.dumps(body)
        made = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        return client.post(
            f"/events{path}", data, content_type="application/json", HTTP_REQUEST_ID=REQUEST_ID, **made
        )

    return post


@pytest.fixture
def fresh_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[tasks.Process]:
    """Have this process be a worker that has just started, and leave nothing of it behind."""
    with contextlib.closing(tasks.Process()) as process:
        monkeypatch.setattr(tasks, "process", process)
        yield process
    worker.Worker.current = None


@pytest.fixture
def transport() -> Iterator[Transport]:
    """A transport that reaches loopback."""
    with contextlib.closing(make_transport()) as transport:
        yield transport


@pytest.fixture
def courier() -> Iterator[Courier]:
    """A courier that reaches loopback."""
    with contextlib.closing(Courier(make_transport())) as courier:
        yield courier


@pytest.fixture
def clock(db: None) -> DatabaseClock:
    """The database's clock, which stands still until the test moves it."""
    return DatabaseClock()


@pytest.fixture
def make_attempt(db: None) -> Callable[..., DeliveryAttempt]:
    """Log an attempt of a request: a delivered one unless told otherwise."""

    def make(request: WebhookRequest, attempt_number: int = 1, **fields: Any) -> DeliveryAttempt:
        usual = {
            "attempt_number": attempt_number,
            "trigger": "initial" if attempt_number == 1 else "retry",
            "attempted_at": datetime(2026, 11, 24, 12, tzinfo=UTC) + timedelta(minutes=attempt_number),
            "success": True,
            "status_code": 200,
            "response_ms": 12,
        }
        return DeliveryAttempt.objects.create(
            request=request, subscription_id=request.subscription_id, **(usual | fields)
        )

    return make


@pytest.fixture
def settle(db: None) -> Callable[..., WebhookRequest]:
    """Settle a request as `status`, now unless told otherwise."""

    def settle(request: WebhookRequest, status: str = "delivered", **fields: Any) -> WebhookRequest:
        fields = {"settled_at": datetime.now(UTC)} | fields
        WebhookRequest.objects.filter(id=request.id).update(status=status, next_attempt_at=None, **fields)
        request.refresh_from_db()
        return request

    return settle
