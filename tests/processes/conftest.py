"""A service of real processes on a database of its own, beside the one that Django's tests use."""

import os
from collections.abc import Callable, Iterator

import pytest
import redis
import requests

from subscriptions import signing
from tests.conftest import ingest_body
from tests.service import Service, connect, service
from tests.waiting import wait_until

SECRET = "a secret of the process tests"
DATABASE = "webhooks_processes"
TABLES = "operation_parts, operations, delivery_attempts, webhook_requests, events, subscriptions"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    server_url = os.environ["DATABASE_URL"]
    with connect(server_url) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        connection.execute(f"CREATE DATABASE {DATABASE}")
    with service(
        tmp_path_factory.mktemp("service"),
        database_url=server_url.rpartition("/")[0] + "/" + DATABASE,
        redis_url=os.environ["REDIS_URL"],
        LEASE_MARGIN_SECONDS="1",
    ) as made:
        yield made


@pytest.fixture
def running(migrated: Service) -> Iterator[Service]:
    """A service with empty tables; the test starts the processes it needs."""
    migrated.query(f"TRUNCATE {TABLES}")
    yield migrated
    migrated.stop()


@pytest.fixture
def redis_client() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        yield client


@pytest.fixture
def subscribe(running: Service) -> Callable[..., str]:
    """Create a subscription over the API and return its id."""

    def create(target_url: str, **fields: object) -> str:
        body = {"target_url": target_url, "secret": SECRET} | fields
        answer = requests.post(f"{running.url}/subscriptions", json=body, timeout=10)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    return create


@pytest.fixture
def ingest(running: Service) -> Callable[..., str]:
    """Ingest an event over the API and return the id of its request."""

    def post(subscription_id: str, body: str = '{"n": 1}') -> str:
        raw = ingest_body(subscription_id, body=body)
        headers = {
            "Content-Type": "application/json",
            "X-Webhook-Signature": signing.sign_body(SECRET.encode(), raw),
        }
        answer = requests.post(f"{running.url}/ingest", data=raw, headers=headers, timeout=10)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["request_id"])

    return post


@pytest.fixture
def wait_for_status(running: Service) -> Callable[..., dict]:
    """Ask for a request's status until it is `status`, and return the whole answer."""

    def wait(request_id: str, status: str) -> dict:
        url = f"{running.url}/status/request/{request_id}"
        return wait_until(
            lambda: requests.get(url, timeout=10).json(), lambda answer: answer["status"] == status, running.logs
        )

    return wait
