"""What every operation refuses alike: whole bodies and headers, at each that /openapi.json says it of.

A new operation is in these tests by itself. Refusals of POST /ingest and GET /metrics, which take no API key,
are in tests/deliveries, in test_ingest_refusals.py and test_metrics.py; 409, 412 and 422 beside what else each
operation does.
"""

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection
from drf_spectacular.generators import SchemaGenerator

from subscriptions.models import ApiKey
from tests.expected import NO_API_KEY_DETAIL, REQUEST_ID, no_scope, problem
from tests.wsgi import Answer, call

pytestmark = pytest.mark.django_db

NO_KEY = problem(401, "not_authenticated", NO_API_KEY_DETAIL)
WRONG_KEY = problem(401, "authentication_failed", "This API key is unknown, expired or revoked.")
AWAY = problem(503, "unavailable", "The service cannot store anything right now. Try again.")


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of the API, as its description has it."""

    method: str
    path: str
    description: str
    statuses: frozenset[str]
    example: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def body(self) -> bytes:
        """What the operation takes for valid, if it takes anything."""
        return b"" if self.method in ("GET", "DELETE") else json.dumps(self.example).encode()

    def ask(self, key: str | None, *, method: str | None = None, **headers: str) -> Answer:
        """Make a valid call, whose ids never were, but for what is given."""
        path = re.sub(r"\{\w+_id\}", str(uuid.uuid4()), self.path).replace("{name}", "never.described")
        usual = {"Request-Id": REQUEST_ID, "Content-Type": "application/json"}
        authorization = {} if key is None else {"Authorization": f"Bearer {key}"}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return call(method or self.method, path, self.body, usual | authorization | given)


def operations() -> Iterator[Operation]:
    for path, found in SchemaGenerator().get_schema(public=True)["paths"].items():
        for method, operation in found.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            examples = [example["value"] for example in content.get("examples", {}).values()]
            yield Operation(
                method=method.upper(),
                path=path,
                description=operation["description"],
                statuses=frozenset(operation["responses"]),
                example=examples[0] if examples else {},
            )


OPERATIONS = [operation for operation in operations() if operation.path not in ("/ingest", "/metrics")]
ALLOWED = ("GET", "POST", "PATCH", "DELETE")


def refusing(status: str) -> pytest.MarkDecorator:
    """Try every operation that is said to answer this status."""
    named = [each for each in OPERATIONS if status in each.statuses and each.path != "/ready"]
    return pytest.mark.parametrize("operation", named, ids=str)


def make_key(*scopes: str) -> str:
    return ApiKey.objects.create_key("of the tests", scopes, tenant=None, valid_for=None)[1]


@pytest.fixture
def key(db: None) -> str:
    return make_key("publish", "read", "manage")


def assert_refused(answer: Answer, document: dict[str, Any], **headers: str) -> None:
    assert (answer.status, answer.json()) == (document["status"], document)
    expected = {"Content-Type": "application/problem+json", "Request-Id": REQUEST_ID}
    expected |= {name.replace("_", "-"): value for name, value in headers.items()}
    assert {name: answer.headers.get(name) for name in expected} == expected


@refusing("401")
def test_it_wants_an_api_key(operation):
    realm = 'Bearer realm="webhooks"'
    assert_refused(operation.ask(None), NO_KEY, WWW_Authenticate=realm)
    assert_refused(operation.ask("whk_0123456789ab_x"), WRONG_KEY, WWW_Authenticate=realm)


@refusing("403")
def test_it_wants_the_scope_that_it_names(operation):
    [scope] = re.findall(r"The API key needs the scope `(\w+)`[.]$", operation.description)
    others = {"publish", "read", "manage"} - {scope}
    assert_refused(operation.ask(make_key(*others)), no_scope(scope))
    assert operation.ask(make_key(scope)).status != 403


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if "{" in each.path], ids=str)
def test_it_finds_nothing_under_an_id_that_never_was(operation, key):
    thing = "subscription" if "{subscription_id}" in operation.path else "thing here"
    assert_refused(operation.ask(key), problem(404, "not_found", f"There is no such {thing}."))


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_it_names_the_methods_that_a_path_has(operation, key):
    methods = [
        name for name in ALLOWED if name in {each.method for each in OPERATIONS if each.path == operation.path}
    ]
    allowed = [*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"]
    document = problem(405, "method_not_allowed", 'Method "PUT" not allowed.')
    assert_refused(operation.ask(key, method="PUT"), document, Allow=", ".join(allowed))


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_it_answers_options_with_the_methods_alone(operation, key):
    answer = operation.ask(key, method="OPTIONS")
    methods = {each.method for each in OPERATIONS if each.path == operation.path}
    assert (answer.status, answer.json()) == (200, {})
    assert set(answer.headers["Allow"].split(", ")) - {"HEAD", "OPTIONS"} == methods


@refusing("413")
def test_it_reads_no_body_over_the_limit(operation, key, settings):
    settings.MAX_BODY_BYTES = len(operation.body)
    assert operation.ask(key).status != 413
    settings.MAX_BODY_BYTES -= 1
    detail = f"The request body may have at most {settings.MAX_BODY_BYTES} bytes."
    assert_refused(operation.ask(key), problem(413, "too_large", detail))


@refusing("415")
def test_it_takes_nothing_but_json(operation, key):
    document = problem(415, "unsupported_media_type", "Send application/json in UTF-8.")
    assert_refused(operation.ask(key, Content_Type="text/plain"), document)


@refusing("429")
def test_it_counts_for_the_rate_limit_of_the_key(operation, key, settings, patient_redis):
    settings.API_RATE_LIMIT = "1/day"
    assert operation.ask(key).status != 429
    answer = operation.ask(key)
    wait = answer.headers["Retry-After"]
    assert 0 < int(wait) <= 24 * 3600
    assert_refused(
        answer,
        problem(
            429, "rate_limited", "There may be no more calls with this API key than 1 per 1 day. Try again later."
        ),
        RateLimit_Policy='"default";q=1;w=86400',
        RateLimit=f'"default";r=0;t={wait}',
    )


@pytest.mark.django_db(transaction=True)
def test_it_asks_to_try_again_while_the_database_is_away(key, monkeypatch):
    named = [each for each in OPERATIONS if "503" in each.statuses and each.path != "/ready"]
    assert len(named) >= 28
    with monkeypatch.context() as away:
        connection.close()
        away.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        away.setitem(connection.settings_dict, "PORT", 1)
        for operation in named:
            assert_refused(operation.ask(key), AWAY, Retry_After="2")
    assert all(operation.ask(key).status != 503 for operation in named)
