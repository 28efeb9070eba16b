"""Fixtures that several test modules share. Servers come from tests/plugin.py."""

import json
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now
from django.test import Client
from pytest_django.fixtures import Settings
from pytest_django.plugin import DjangoDbBlocker
from rest_framework.test import APIClient

from deliveries import queue, worker
from deliveries.dispatcher import Dispatcher
from deliveries.models import WebhookRequest
from subscriptions import cache, schema_cache, signing
from subscriptions.models import ApiKey, Subscription
from tests.receiver import Receiver, running_receiver
from tests.staff import operator_client
from tests.waiting import wait_until

SECRET = "a secret of the tests"


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """Let Django empty the tables after a test with transactions of its own, the audit log included."""
    with django_db_blocker.unblock(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_entries DISABLE TRIGGER audit_entries_kept")


@pytest.fixture(autouse=True)
def _fresh_process_state() -> Iterator[None]:
    """Forget what a process remembers between calls: cached subscriptions and the queue's contents."""
    cache.clear()
    schema_cache.clear()
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.flushdb()
    yield
    cache.clear()
    schema_cache.clear()
    # What was accepted while Redis was away wakes a worker a second later, which is not to be within another test.
    for waker in (queue._waker, queue._maintenance_waker):
        wait_until(partial(has_pushed, waker), bool, lambda: "a wake-up is not sent", pause_seconds=0.001)


def has_pushed(waker: Any) -> bool:
    """Return whether all that was signalled is in Redis, and nothing on its way there."""
    with waker._pushing:
        return not waker._signal.is_set()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter, as PostgreSQL's has to when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="webhooks-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as receiver:
        yield receiver


@pytest.fixture
def no_redis(settings: Settings) -> Iterator[None]:
    """Have REDIS_URL lead to a port that nobody listens on."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings.REDIS_URL = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
        yield


@pytest.fixture
def patient_redis(settings: Settings) -> None:
    """Have Redis waited for as long as it takes: on a busy machine it may be slow, and not away."""
    settings.REDIS_URL = patient(settings.REDIS_URL)


def patient(redis_url: str) -> str:
    """Return the URL of this Redis with the time limits in it that a client is to have."""
    return f"{redis_url}{'&' if '?' in redis_url else '?'}socket_timeout=30&socket_connect_timeout=30"


@pytest.fixture
def full_audit_log(db: None) -> None:
    """Have the database refuse every further entry of the audit log, until the test's transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_entries ADD CONSTRAINT audit_log_is_full CHECK (false) NOT VALID")


@pytest.fixture
def make_subscription(db: None) -> Callable[..., Subscription]:
    """Make a subscription in the database; its secret is SECRET unless another is given."""

    def make(target_url: str = "http://127.0.0.1:9/", *, secret: str = SECRET, **fields: Any) -> Subscription:
        subscription = Subscription(target_url=target_url, **fields)
        subscription.set_secret(secret)
        subscription.save()
        return subscription

    return make


@pytest.fixture
def make_request(db: None) -> Callable[..., WebhookRequest]:
    """Store a request that is due, as an ingest call would have."""

    def make(subscription: Subscription, payload: bytes = b'{"n": 1}', **fields: Any) -> WebhookRequest:
        fields = {"event_type": "invoice.paid", "tenant": subscription.tenant} | fields
        request = WebhookRequest.objects.create(subscription=subscription, payload=payload, **fields)
        request.refresh_from_db()
        return request

    return make


@pytest.fixture
def make_due(db: None) -> Callable[[WebhookRequest], None]:
    """Make a pending request due now: a retry's time has come, or a lease has run out."""

    def make(request: WebhookRequest) -> None:
        WebhookRequest.objects.filter(id=request.id).update(next_attempt_at=Now() - timedelta(seconds=1))

    return make


@pytest.fixture
def make_client(db: None) -> Callable[..., APIClient]:
    """Make a client of the REST API with a key of its own."""

    def make(*scopes: str, tenant: str | None = None) -> APIClient:
        _, text = ApiKey.objects.create_key(
            "of the tests", scopes or ("publish", "read", "manage"), tenant=tenant, valid_for=None
        )
        client = APIClient(raise_request_exception=False)
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {text}")
        return client

    return make


@pytest.fixture
def client_with_key(make_client: Callable[..., APIClient]) -> APIClient:
    """An operator's client: every scope, every tenant."""
    return make_client()


@pytest.fixture
def operator(db: None) -> Client:
    """The browser of a superuser who is logged in."""
    return operator_client()


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    """A dispatcher in this process, as a worker has one."""
    dispatcher = Dispatcher(
        work_waiting=queue.take_wake_ups, should_stop=worker.is_stopping, keep_alive=worker.keep_alive
    )
    yield dispatcher
    dispatcher.close()


@pytest.fixture
def deliver(dispatcher: Dispatcher) -> Callable[[], int]:
    """Deliver everything that is due, in this process; returns how many attempts were made."""
    return dispatcher.drain


def ingest_body(subscription_id: Any, event_type: str = "invoice.paid", body: str = '{"n": 1}') -> bytes:
    """Return the raw body of an ingest call; `body` is JSON text, kept as it is."""
    envelope = f'{{"subscription_id": {json.dumps(str(subscription_id))}, "event_type": {json.dumps(event_type)}'
    return f'{envelope}, "body": {body}}}'.encode()


def signature_of(body: bytes, secret: str = SECRET) -> str:
    return signing.sign_body(signing.key_of(secret), body)


def signed_headers(body: bytes, secret: str = SECRET, **headers: str) -> Mapping[str, str]:
    return {"X-Webhook-Signature": signature_of(body, secret), "Content-Type": "application/json"} | headers
