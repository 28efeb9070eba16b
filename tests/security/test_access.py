"""Every operation that the API describes wants a key, a scope, and shows a tenant nothing of another's."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator

from deliveries.bulk import Operation
from deliveries.models import Event
from subscriptions.models import ApiKey
from tests.expected import REQUEST_ID
from tests.security.test_input import MISSING
from tests.wsgi import Answer, call

pytestmark = pytest.mark.django_db

# Open to everybody, or authenticated by something else than an API key.
OPEN = {"/health", "/ready", "/ingest", "/metrics"}


def operations() -> Iterator[tuple[str, str]]:
    """Yield the method and the path of every operation that takes an API key."""
    schema = SchemaGenerator().get_schema(public=True)
    for path, item in schema["paths"].items():
        if path not in OPEN:
            yield from ((method.upper(), path) for method in item)


def key(*scopes: str, tenant: str | None = None) -> str:
    return ApiKey.objects.create_key("of the tests", scopes, tenant=tenant, valid_for=None)[1]


def ask(method: str, path: str, text: str | None, body: bytes = b"{}") -> Answer:
    headers = {"Content-Type": "application/json", "Request-Id": REQUEST_ID}
    return call(method, path, body, headers if text is None else headers | {"Authorization": f"Bearer {text}"})


def with_ids(path: str, ids: Mapping[str, Any]) -> str:
    """Put ids into a path; where an id has no row here, one that never was."""
    named = {"name": "invoice.paid"} | dict(ids)
    return re.sub(r"\{(\w+)\}", lambda match: str(named.get(match[1], MISSING)), path)


@pytest.fixture
def ids(make_subscription, make_request) -> dict[str, Any]:
    """The ids of rows that belong to the tenant acme."""
    subscription = make_subscription(tenant="acme", description="of acme")
    request = make_request(subscription, tenant="acme")
    event = Event.objects.create(tenant="acme", event_type="invoice.paid", payload=b'"of acme"')
    operation = Operation.objects.create(kind=Operation.Kind.values[0], tenant="acme")
    rows = {"subscription": subscription, "request": request, "event": event, "operation": operation}
    return {f"{name}_id": row.id for name, row in rows.items()}


def test_it_looks_at_every_operation():
    found = list(operations())
    assert ("POST", "/subscriptions") in found
    assert ("GET", "/status/request/{request_id}") in found
    assert len(found) >= 20


def test_no_operation_is_open_without_a_key_or_with_a_wrong_one(ids):
    revoked = key("publish", "read", "manage")
    ApiKey.objects.all().revoke()
    for method, path in operations():
        for text in (None, "", "whk_", "whk_0123456789ab_x", revoked, revoked + "x"):
            answer = ask(method, with_ids(path, ids), text)
            assert answer.status == 401, (method, path, text)


def test_no_operation_is_open_to_a_key_without_a_scope(ids):
    text = key()
    for method, path in operations():
        assert ask(method, with_ids(path, ids), text).status == 403, (method, path)


def test_nothing_is_changed_by_a_key_that_may_read(ids):
    text = key("read")
    for method, path in operations():
        if method not in ("GET", "HEAD"):
            assert ask(method, with_ids(path, ids), text).status == 403, (method, path)


def test_what_belongs_to_another_tenant_looks_like_what_never_was(ids):
    text = key("publish", "read", "manage", tenant="globex")
    for method, path in operations():
        if "_id}" not in path:
            continue
        others = ask(method, with_ids(path, ids), text)
        none = ask(method, with_ids(path, {}), text)
        assert (others.status, others.body) == (none.status, none.body), (method, path)
        assert others.status in (400, 404), (method, path)


def test_no_list_shows_what_belongs_to_another_tenant(ids):
    text = key("publish", "read", "manage", tenant="globex")
    for method, path in operations():
        if method == "GET" and "{" not in path:
            for query in ("", "?tenant=acme"):
                answer = ask(method, path + query, text)
                assert answer.status in (200, 400), path
                assert b"acme" not in answer.body, path
                assert not any(str(row_id).encode() in answer.body for row_id in ids.values()), path
