"""Tenants cannot see each other: every operation of /openapi.json, asked for what is another tenant's.

A new operation is in these tests by itself. One with an id that they do not know fails them.
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from drf_spectacular.generators import SchemaGenerator

from deliveries import bulk
from deliveries.models import DeliveryAttempt, Event, WebhookRequest
from subscriptions.ids import new_id
from subscriptions.models import Subscription
from tests.expected import REQUEST_ID

MINE, THEIRS = "acme", "globex"

# What belongs to nobody in particular.
OF_NOBODY = ("/health", "/ready", "/metrics", "/ingest", "/event-types")


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of the API, as its description has it."""

    method: str
    path: str
    id_parameter: str | None
    filters: list[str]
    example: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def is_list(self) -> bool:
        return "cursor" in self.filters


def operations() -> Iterator[Operation]:
    for path, found in SchemaGenerator().get_schema(public=True)["paths"].items():
        if path.startswith(OF_NOBODY):
            continue
        for method, operation in found.items():
            parameters = operation.get("parameters", [])
            places = {parameter["name"]: parameter["in"] for parameter in parameters}
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            examples = [example["value"] for example in content.get("examples", {}).values()]
            yield Operation(
                method=method,
                path=path,
                id_parameter=next((name for name, place in places.items() if place == "path"), None),
                filters=[name for name, place in places.items() if place == "query"],
                example=examples[0] if examples else None,
            )


OPERATIONS = {str(operation): operation for operation in operations()}
with_an_id = pytest.mark.parametrize("name", [name for name, each in OPERATIONS.items() if each.id_parameter])
lists = pytest.mark.parametrize("name", [name for name, each in OPERATIONS.items() if each.is_list])


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What one tenant has, one of each kind."""

    subscription: Subscription
    event: Event
    request: WebhookRequest
    attempt: DeliveryAttempt
    operation: bulk.Operation

    @property
    def ids(self) -> dict[str, uuid.UUID]:
        """The ids, by the names that the API's parameters have for them."""
        return {
            "subscription_id": self.subscription.id,
            "subscription": self.subscription.id,
            "event_id": self.event.id,
            "request_id": self.request.id,
            "operation_id": self.operation.id,
        }

    @property
    def words(self) -> set[str]:
        """What an answer would have in it if it told anything of these rows."""
        rows = (self.subscription, self.event, self.request, self.attempt, self.operation)
        ids = {str(row.pk) for row in rows}
        return ids | {self.subscription.target_url, self.subscription.description, "of.this.tenant"}


@pytest.fixture
def make_rows(make_subscription, receiver):
    def make(tenant: str) -> Rows:
        subscription = make_subscription(
            f"{receiver.url}/{tenant}",
            tenant=tenant,
            description=f"of {tenant} alone",
            event_types=[f"{tenant}.*"],
        )
        event_type = "of.this.tenant" if tenant == THEIRS else "mine"
        event = Event.objects.create(tenant=tenant, event_type=event_type, payload=b'{"n": 1}')
        request = WebhookRequest.objects.create(
            subscription=subscription, tenant=tenant, event=event, event_type=event_type
        )
        attempt = DeliveryAttempt.objects.create(
            request=request,
            subscription=subscription,
            attempt_number=1,
            trigger="initial",
            attempted_at=subscription.created_at,
            success=False,
            error="timeout",
        )
        operation = bulk.Operation.objects.create(
            kind="recover", tenant=tenant, selection={"subscription": str(subscription.id)}
        )
        return Rows(subscription=subscription, event=event, request=request, attempt=attempt, operation=operation)

    return make


@pytest.fixture
def mine(make_rows):
    return make_rows(MINE)


@pytest.fixture
def theirs(make_rows):
    return make_rows(THEIRS)


@pytest.fixture
def client(make_client):
    """My client, whose key may do everything, and has been used so that its use is noted already."""
    client = make_client(tenant=MINE)
    client.get("/subscriptions")
    return client


def ask(client, operation, row_id=None, query=None):
    """Make a call; returns its answer and how many queries it took."""
    path = operation.path.format(**({operation.id_parameter: row_id} if operation.id_parameter else {}))
    if query:
        path += "?" + "&".join(f"{name}={value}" for name, value in query.items())
    with CaptureQueriesContext(connection) as queries:
        answer = client.generic(
            operation.method.upper(),
            path,
            "" if operation.example is None else json.dumps(operation.example),
            content_type="application/json",
            headers={"Request-Id": REQUEST_ID},
        )
    return answer, len(queries)


def told(answer):
    return answer.status_code, answer.content, dict(answer.headers)


@pytest.mark.parametrize("is_cached", [False, True])
@with_an_id
def test_it_answers_to_an_id_of_another_tenant_as_to_one_that_never_was(client, theirs, receiver, name, is_cached):
    operation = OPERATIONS[name]
    if is_cached:  # by an ingest call of theirs, say
        Subscription.objects.cached(theirs.subscription.id)
    before = [list(model.objects.values()) for model in (Subscription, WebhookRequest, Event, DeliveryAttempt)]
    found, queries = ask(client, operation, theirs.ids[operation.id_parameter])
    never_was, as_many = ask(client, operation, new_id())
    assert told(found) == told(never_was)
    assert found.status_code == 404
    # The same work is done, so that the time does not tell them apart either.
    assert queries == as_many
    after = [list(model.objects.values()) for model in (Subscription, WebhookRequest, Event, DeliveryAttempt)]
    assert after == before
    assert receiver.arrivals == []


@with_an_id
def test_it_does_what_is_asked_with_an_id_of_mine(client, mine, name):
    operation = OPERATIONS[name]
    answer, _ = ask(client, operation, mine.ids[operation.id_parameter])
    # Some cannot be done to these rows (409), but each is found.
    assert answer.status_code in (200, 202, 204, 409), answer.content


@lists
def test_it_lists_mine_alone(client, mine, theirs, name):
    answer, _ = ask(client, OPERATIONS[name])
    text = answer.content.decode()
    assert len(answer.json()["results"]) == 1
    assert {word for word in theirs.words if word in text} == set()


@lists
def test_no_filter_lists_another_tenants(client, theirs, name):
    operation = OPERATIONS[name]
    values = {
        "tenant": [THEIRS],
        "subscription": [theirs.subscription.id],
        "event_type": ["of.this.tenant", f"{THEIRS}.x"],
        "search": [THEIRS, "alone"],
        "status": ["active", "pending"],
        "error": ["timeout"],
    }
    for name_of_filter in operation.filters:
        for value in values.get(name_of_filter, []):
            found, queries = ask(client, operation, query={name_of_filter: value})
            text = found.content.decode()
            assert found.status_code == 400 or found.json()["results"] == [], (name_of_filter, value)
            assert {word for word in theirs.words if word in text} == set()
            if name_of_filter == "subscription":
                never_was, as_many = ask(client, operation, query={name_of_filter: new_id()})
                assert (told(found), queries) == (told(never_was), as_many)


@lists
def test_a_cursor_of_another_tenants_list_is_a_place_and_no_more(client, make_client, make_rows, name):
    operation = OPERATIONS[name]
    make_rows(MINE)
    theirs = [make_rows(THEIRS) for _ in range(3)]
    page, _ = ask(make_client(tenant=THEIRS), operation, query={"limit": 1})
    cursor = urlsplit(page.json()["next"]).query
    answer = client.get(f"{operation.path}?{cursor}")
    text = answer.content.decode()
    assert answer.status_code == 200
    assert {word for rows in theirs for word in rows.words if word in text} == set()
    assert len(answer.json()["results"]) == 1


@pytest.mark.parametrize("path", ["/subscriptions", "/events", "/events/batch", "/events/preview"])
def test_it_does_nothing_in_the_name_of_another_tenant(client, theirs, path):
    event = {"event_type": "globex.x", "body": 1, "tenant": THEIRS}
    body = {
        "/subscriptions": {"target_url": "https://example.com/", "tenant": THEIRS},
        "/events/batch": {"events": [event]},
    }.get(path, event)
    answer = client.post(path, body, format="json")
    text = answer.content.decode()
    assert answer.status_code in (400, 403), text
    assert {word for word in theirs.words if word in text} == set()
    assert Event.objects.count() == Subscription.objects.count() == 1


def test_an_event_of_mine_goes_to_none_of_theirs(client, theirs):
    body = {"event_type": "globex.x", "body": 1}
    for path in ("/events", "/events/preview"):
        text = client.post(path, body, format="json").content.decode()
        assert {word for word in theirs.words if word in text} == set()
    assert WebhookRequest.objects.count() == 1


def test_it_knows_every_id_that_the_api_takes(mine):
    assert {each.id_parameter for each in OPERATIONS.values() if each.id_parameter} <= set(mine.ids)
