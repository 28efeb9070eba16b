"""/openapi.json: complete and valid."""

import ast
import os
import re
import subprocess
import sys

import jsonschema_rs
import pytest
from django.conf import settings

from config.settings import BASE_DIR
from deliveries import problem_codes
from subscriptions import secrets
from tests.conftest import ingest_body
from tests.wsgi import call

# What an operation answers besides its own, by what it takes: anything, a body or a query, a body, an id, a key.
AWAY = {"503"}
INPUT = {"400"}
BODY = INPUT | {"413", "415"}
ID = {"404"}
KEY = {"401", "403", "429"}

# A list may be given up after a while.
LIST = KEY | INPUT | {"422"} | AWAY
STALE = {"412"}

# The documented core, which never changes.
CORE = {
    ("get", "/health"): {"200"},
    ("post", "/subscriptions"): {"201"} | KEY | BODY | AWAY,
    ("get", "/subscriptions/{subscription_id}"): {"200"} | KEY | ID | AWAY,
    ("post", "/ingest"): {"202", "204", "401", "404", "409", "422"} | BODY | AWAY,
    ("get", "/status/request/{request_id}"): {"200"} | KEY | ID | AWAY,
    ("get", "/status/subscription/{subscription_id}"): {"200"} | KEY | INPUT | ID | AWAY,
}

# Everything around it, with what it answers.
AROUND = {
    ("get", "/ready"): {"200", "503"},
    ("get", "/metrics"): {"200", "401", "404"} | AWAY,
    ("get", "/subscriptions"): {"200"} | LIST,
    ("patch", "/subscriptions/{subscription_id}"): {"200"} | STALE | KEY | BODY | ID | AWAY,
    ("delete", "/subscriptions/{subscription_id}"): {"204"} | STALE | KEY | ID | AWAY,
    ("post", "/subscriptions/{subscription_id}/pause"): {"200", "409"} | STALE | KEY | BODY | ID | AWAY,
    ("post", "/subscriptions/{subscription_id}/resume"): {"200", "409"} | STALE | KEY | BODY | ID | AWAY,
    ("post", "/subscriptions/{subscription_id}/enable"): {"200"} | STALE | KEY | BODY | ID | AWAY,
    ("post", "/subscriptions/{subscription_id}/disable"): {"200"} | STALE | KEY | BODY | ID | AWAY,
    ("post", "/subscriptions/{subscription_id}/rotate-secret"): {"200"} | STALE | KEY | BODY | ID | AWAY,
    ("post", "/subscriptions/{subscription_id}/test"): {"200"} | KEY | BODY | ID | AWAY,
    ("post", "/events"): {"202", "422"} | KEY | BODY | AWAY,
    ("post", "/events/batch"): {"202", "422"} | KEY | BODY | AWAY,
    ("post", "/events/preview"): {"200", "422"} | KEY | BODY | AWAY,
    ("get", "/events"): {"200"} | LIST,
    ("get", "/events/{event_id}"): {"200"} | KEY | ID | AWAY,
    ("get", "/requests"): {"200"} | LIST,
    ("get", "/requests/{request_id}"): {"200"} | KEY | ID | AWAY,
    ("post", "/requests/{request_id}/replay"): {"202", "409"} | KEY | BODY | ID | AWAY,
    ("post", "/requests/{request_id}/cancel"): {"200", "409"} | KEY | BODY | ID | AWAY,
    ("post", "/subscriptions/{subscription_id}/recover"): {"200", "202", "409", "422"} | KEY | BODY | ID | AWAY,
    ("get", "/operations"): {"200"} | LIST,
    ("post", "/operations"): {"200", "202", "404", "422"} | KEY | BODY | AWAY,
    ("get", "/operations/{operation_id}"): {"200"} | KEY | ID | AWAY,
    ("post", "/operations/{operation_id}/cancel"): {"200", "409"} | KEY | BODY | ID | AWAY,
    ("get", "/event-types"): {"200"} | LIST,
    ("post", "/event-types"): {"201", "409"} | KEY | BODY | AWAY,
    ("get", "/event-types/{name}"): {"200"} | KEY | ID | AWAY,
    ("patch", "/event-types/{name}"): {"200"} | KEY | BODY | ID | AWAY,
}

PACKAGES = ("config", "subscriptions", "deliveries")

# Of refusals that Django REST framework raises.
CODES_OF_THE_FRAMEWORK = {"parse_error", "not_authenticated", "authentication_failed"}


@pytest.fixture
def schema(client):
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/vnd.oai.openapi+json"
    return answer.json()


def test_it_describes_every_endpoint_with_what_it_answers(schema):
    described = {
        (method, path): set(operation["responses"])
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    }
    assert described == CORE | AROUND


def test_it_describes_every_operation_in_words(schema):
    operations = {
        f"{method} {path}": operation
        for path, found in schema["paths"].items()
        for method, operation in found.items()
    }
    bare = {
        name: missing
        for name, operation in operations.items()
        if (
            missing := [
                each for each in ("operationId", "summary", "description", "tags") if not operation.get(each)
            ]
        )
    }
    assert bare == {}
    summaries = [operation["summary"] for operation in operations.values()]
    assert sorted(set(summaries)) == sorted(summaries)
    assert [summary for summary in summaries if len(summary) > 100 or summary.endswith(".")] == []


def test_it_gives_an_example_of_every_body_that_people_write(schema):
    bodies = {
        f"{method} {path}": content
        for path, found in schema["paths"].items()
        for method, operation in found.items()
        for content in operation.get("requestBody", {}).get("content", {}).values()
    }
    assert bodies
    assert [name for name, content in bodies.items() if not content.get("examples")] == []


def test_it_gives_an_example_of_every_answer_that_fits_its_description(schema):
    answers = {
        f"{method} {path} {status}": content
        for path, found in schema["paths"].items()
        for method, operation in found.items()
        for status, answer in operation["responses"].items()
        for content in [answer.get("content", {}).get("application/json")]
        if status < "300" and content
    }
    bare = [name for name, content in answers.items() if not content.get("examples")]
    assert bare == []
    for name, content in answers.items():
        validator = jsonschema_rs.Draft202012Validator(content["schema"] | {"components": schema["components"]})
        for example in content.get("examples", {}).values():
            errors = [error.message for error in validator.iter_errors(example["value"])]
            assert (name, errors) == (name, [])


def test_it_says_what_each_field_of_an_answer_means(schema):
    fields = {
        f"{name}.{field}": described
        for name, found in schema["components"]["schemas"].items()
        for field, described in found.get("properties", {}).items()
        if not name.endswith("Request") and name not in ("Problem", "Readiness")
    }
    assert len(fields) > 100
    assert [name for name, described in fields.items() if not described.get("description")] == []


def test_it_says_what_each_filter_of_a_list_means(schema):
    parameters = {
        f"{path} {parameter['name']}": parameter
        for path, found in schema["paths"].items()
        for parameter in found.get("get", {}).get("parameters", [])
        if parameter["in"] == "query"
    }
    assert [name for name, parameter in parameters.items() if not parameter.get("description")] == []


def test_it_says_what_each_group_of_operations_is_for(schema):
    used = {tag for found in schema["paths"].values() for operation in found.values() for tag in operation["tags"]}
    described = {tag["name"]: tag["description"] for tag in schema["tags"]}
    assert set(described) == used | {"deliveries"}
    assert all(described.values())


@pytest.mark.parametrize("secret", [secrets.make(), "a secret"])
def test_it_shows_how_an_ingest_call_is_signed(schema, make_subscription, secret):
    [code] = re.findall(r"^```python\n(.*?)^```$", schema["info"]["description"], re.M | re.S)
    shown = {}
    exec(code, shown)
    body = ingest_body(make_subscription(secret=secret).id)
    headers = {"Content-Type": "application/json", "X-Webhook-Signature": shown["sign"](secret, body)}
    assert call("POST", "/ingest", body, headers).status == 202


@pytest.mark.parametrize("secret", [secrets.make(), "a secret"])
def test_it_shows_how_a_delivery_is_verified(schema, make_subscription, make_request, receiver, deliver, secret):
    [code] = re.findall(r"^```python\n(.*?)^```$", schema["info"]["description"], re.M | re.S)
    shown = {}
    exec(code, shown)
    make_request(make_subscription(receiver.url, secret=secret))
    deliver()
    [arrival] = receiver.arrivals
    headers = {name.lower(): value for name, value in arrival.headers.items()}
    is_genuine = shown["is_genuine"]
    assert is_genuine(secret, headers, arrival.body)
    assert not is_genuine(secret, headers, arrival.body + b" ")
    assert not is_genuine("another secret", headers, arrival.body)
    assert not is_genuine(secret, {}, arrival.body)
    assert not is_genuine(secret, headers | {"webhook-timestamp": "1"}, arrival.body)


def test_it_gives_an_example_of_every_refusal(schema):
    refusals = {
        f"{method} {path} {status}": (status, answer["content"]["application/problem+json"])
        for path, found in schema["paths"].items()
        for method, operation in found.items()
        for status, answer in operation["responses"].items()
        if "application/problem+json" in answer.get("content", {})
    }
    assert len(refusals) > 200
    for name, (status, content) in refusals.items():
        validator = jsonschema_rs.Draft202012Validator(content["schema"] | {"components": schema["components"]})
        assert content["examples"]
        for code, example in content["examples"].items():
            told = example["value"]
            assert (name, [error.message for error in validator.iter_errors(told)]) == (name, [])
            assert (name, told["status"], told["code"]) == (name, int(status), code)
            assert problem_codes.MEANINGS[code][0] == int(status)


def problems_in_the_code():
    """Every status and code that a problem of the product is made with."""
    for path in (path for package in PACKAGES for path in (settings.BASE_DIR / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            given = {each.arg: each.value for each in getattr(node, "keywords", ())}
            if {"status", "code"} <= set(given) and isinstance(given["code"], ast.Constant):
                yield given["code"].value, given["status"].value


def test_it_says_what_each_code_of_a_problem_means(schema):
    found = set(problems_in_the_code())
    assert len(found) > 20
    told = {code: status for code, (status, _) in problem_codes.MEANINGS.items()}
    assert found <= set(told.items())
    assert set(told) - {code for code, _ in found} == CODES_OF_THE_FRAMEWORK
    text = schema["info"]["description"]
    assert [code for code, status in told.items() if f"| {status} | `{code}` |" not in text] == []


def test_it_leads_from_what_is_made_to_what_can_be_done_with_it(schema):
    found = {
        f"{method} {path} {status}": {
            name: (link["operationId"], *link["parameters"].items()) for name, link in answer["links"].items()
        }
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
        for status, answer in operation["responses"].items()
        if "links" in answer
    }
    of_operation = ("operations_retrieve", "operations_cancel")
    of_request = ("requests_retrieve", "requests_replay", "requests_cancel", "status_request")
    verbs = ("pause", "resume", "enable", "disable", "rotate_secret", "recover", "test")
    of_subscription = (
        *(f"subscriptions_{verb}" for verb in ("retrieve", "change", "delete", *verbs)),
        "status_subscription",
    )

    def links(names, parameter, field):
        return {name: (name, (parameter, f"$response.body#/{field}")) for name in names}

    assert found == {
        "post /subscriptions 201": links(of_subscription, "subscription_id", "id"),
        "post /subscriptions/{subscription_id}/recover 202": links(of_operation, "operation_id", "id"),
        "post /operations 202": links(of_operation, "operation_id", "id"),
        "post /events 202": links(("events_retrieve",), "event_id", "event_id"),
        "post /ingest 202": links(of_request, "request_id", "request_id"),
    }


def test_it_says_what_a_receiver_gets(schema, make_subscription, make_request, receiver, deliver):
    make_request(make_subscription(receiver.url))
    deliver()
    [arrival] = receiver.arrivals
    described = {each["name"].lower() for each in schema["webhooks"]["delivery"]["post"]["parameters"]}
    of_http = {"host", "accept", "content-type", "content-length"}
    assert {name.lower() for name in arrival.headers} == described | of_http


def test_it_says_where_if_match_is_taken_and_an_etag_given(schema):
    taking, giving = set(), set()
    for path, found in schema["paths"].items():
        for method, operation in found.items():
            names = {parameter["name"] for parameter in operation.get("parameters", [])}
            answers = operation["responses"].items()
            if "If-Match" in names:
                taking.add(f"{method} {path}")
                assert "412" in operation["responses"]
            giving |= {f"{method} {path}" for _, answer in answers if "ETag" in answer.get("headers", {})}
    one = "/subscriptions/{subscription_id}"
    verbs = {f"post {one}/{verb}" for verb in ("pause", "resume", "enable", "disable", "rotate-secret")}
    assert taking == {f"patch {one}", f"delete {one}"} | verbs
    assert giving == {"post /subscriptions", f"get {one}", f"patch {one}"} | verbs


def test_it_describes_every_refusal_as_a_problem(schema):
    described = {
        (method, path, status): set(answer.get("content", {}))
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
        for status, answer in operation["responses"].items()
        if status >= "400" and path != "/ready"
    }
    assert set(map(frozenset, described.values())) == {frozenset({"application/problem+json"})}


def test_it_says_with_which_refusals_a_retry_after_comes(schema):
    wait = {"required": True, "schema": {"type": "integer"}, "description": "Seconds to wait."}
    with_it, without = set(), set()
    for operations in schema["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if "application/problem+json" in answer.get("content", {}):
                    has_it = answer.get("headers", {}).get("Retry-After") == wait
                    (with_it if has_it else without).add(status)
    assert with_it == {"412", "429", "503"}
    assert with_it & without == set()


def test_it_says_of_every_body_that_unknown_fields_are_refused(schema):
    schemas = schema["components"]["schemas"]
    taken = {name: one for name, one in schemas.items() if name.endswith("Request") and "properties" in one}
    assert taken
    assert [name for name, one in taken.items() if one["additionalProperties"] is not False] == []


def test_it_says_which_version_of_openapi_and_which_service_it_is(schema):
    assert schema["openapi"] == "3.1.0"
    assert schema["info"]["title"] == "Webhook delivery service"


def test_it_wants_a_key_where_the_service_does_and_nowhere_else(schema):
    secured = {
        (method, path)
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
        if {"apiKey": []} in operation.get("security", [])
    }
    open_to_all = {("get", "/health"), ("get", "/ready"), ("get", "/metrics"), ("post", "/ingest")}
    contract = CORE | AROUND
    assert {key: key in secured for key in contract} == {key: key not in open_to_all for key in contract}
    assert schema["components"]["securitySchemes"]["apiKey"] == {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, made with `manage.py create_api_key`. Optional in local development.",
    }


def test_it_tells_the_secret_in_the_answers_that_make_one_only(schema):
    schemas = schema["components"]["schemas"]
    assert {name for name, one in schemas.items() if "secret" in one.get("properties", {})} == {
        "NewSubscription",
        "NewSubscriptionRequest",
        "RotationRequest",
    }
    created = schema["paths"]["/subscriptions"]["post"]["responses"]["201"]["content"]["application/json"]
    assert created["schema"] == {"$ref": "#/components/schemas/NewSubscription"}


def test_it_names_the_headers_of_an_ingest_call(schema):
    headers = schema["paths"]["/ingest"]["post"]["parameters"]
    found = {(header["in"], header["name"], header.get("required", False)) for header in headers}
    assert found == {("header", "X-Webhook-Signature", True), ("header", "Idempotency-Key", False)}


@pytest.mark.parametrize("query", ["version=a%0d%0aX:%20y", "version=%00", "lang=xx&format=yaml", "a=1&" * 2_000])
def test_it_is_the_same_whatever_the_query_says(client, query):
    answer = client.get(f"/openapi.json?{query}")
    assert (answer.status_code, answer.content) == (200, client.get("/openapi.json").content)


ASK_AT_ONCE = """
import sys
from concurrent.futures import ThreadPoolExecutor
import django
django.setup()
from subscriptions import openapi
sys.setswitchinterval(1e-6)
with ThreadPoolExecutor(16) as pool:
    print(len({answer.content for answer in pool.map(openapi.description, [None] * 16)}))
"""


def test_the_first_to_ask_a_new_process_may_be_many():
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "config.settings"}
    told = subprocess.run(
        [sys.executable, "-c", ASK_AT_ONCE], cwd=BASE_DIR, env=environment, capture_output=True, text=True
    )
    assert (told.stdout, told.stderr) == ("1\n", "")
