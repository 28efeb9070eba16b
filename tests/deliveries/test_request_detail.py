"""GET /requests/{id}: the whole body, the payload byte for byte, tenants, scopes, queries."""

import json
import uuid

import pytest

from deliveries.models import Event, WebhookRequest
from tests.expected import REQUEST_ID, attempt_body, problem, request_body, rfc3339

NOT_FOUND = problem(404, "not_found", "There is no such thing here.")

# What a parser and a writer of JSON would make something else of.
ODD = b'{"z": 1.0,  "a":1e2, "a" : 100000000000000000000000, "\\u00e9": "\xc3\xa9\\u0000\\ud800", "n": -0}\n'


@pytest.fixture
def get(client_with_key):
    def get(request_id, client=client_with_key):
        return client.get(f"/requests/{request_id}", headers={"Request-Id": REQUEST_ID})

    return get


def test_it_shows_a_request_with_its_attempts_and_its_payload(
    get, make_subscription, make_request, make_attempt, settle
):
    subscription = make_subscription(tenant="acme")
    request = settle(make_request(subscription, b'{"n": 1}', attempt_count=1), "delivered")
    attempt = make_attempt(request, response_body=b"thanks", response_headers="HTTP/1.1 200 OK")
    answer = get(request.id)
    shown = attempt_body(attempt, response_headers="HTTP/1.1 200 OK", response_body="thanks")
    assert answer.json() == request_body(
        request,
        tenant="acme",
        status="delivered",
        settled_at=rfc3339(request.settled_at),
        attempt_count=1,
        next_attempt_at=None,
        findings=None,
        attempts=[shown],
        payload={"n": 1},
    )
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"


@pytest.mark.parametrize("payload", [ODD, b"null", b'"text"', b" [ ] ", b"1.50"])
def test_it_shows_the_payload_byte_for_byte(get, make_subscription, make_request, payload):
    answer = get(make_request(make_subscription(), payload).id)
    assert answer.content.endswith(b',"payload":' + payload + b"}")
    json.loads(answer.content)


def test_it_shows_the_payload_and_the_findings_of_its_event(get, make_subscription):
    findings = [{"pointer": "/n", "detail": "1 is not a string"}]
    event = Event.objects.create(event_type="a", payload=ODD, findings=findings)
    request = WebhookRequest.objects.create(subscription=make_subscription(), event=event, event_type="a")
    answer = get(request.id)
    assert answer.content.endswith(b',"payload":' + ODD + b"}")
    body = answer.json()
    assert (body["event_id"], body["findings"]) == (str(event.id), findings)


def test_it_shows_why_a_request_was_skipped(get, make_subscription, make_request, settle):
    request = settle(make_request(make_subscription()), "skipped", status_reason="Its subscription was disabled.")
    body = get(request.id).json()
    assert (body["status"], body["status_reason"]) == ("skipped", "Its subscription was disabled.")


def test_it_answers_404_for_an_unknown_request(get, db):
    answer = get(uuid.uuid4())
    assert answer.json() == NOT_FOUND
    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/problem+json"


def test_it_shows_a_tenant_no_request_of_another(get, make_client, make_subscription, make_request):
    client = make_client("read", tenant="acme")
    assert get(make_request(make_subscription(tenant="acme")).id, client).status_code == 200
    answer = get(make_request(make_subscription(tenant="globex")).id, client)
    assert answer.json() == NOT_FOUND
    assert answer.status_code == 404


@pytest.mark.parametrize("scope", ["publish", "manage"])
def test_it_wants_a_key_that_may_read(get, make_client, make_subscription, make_request, scope):
    assert get(make_request(make_subscription()).id, make_client(scope)).status_code == 403


@pytest.mark.parametrize("attempt_count", [0, 6])
def test_it_reads_a_request_in_five_queries(
    get, make_subscription, make_request, make_attempt, django_assert_num_queries, attempt_count
):
    request = make_request(make_subscription())
    for number in range(1, attempt_count + 1):
        make_attempt(request, number)
    # The key, its last use, the request with its event, its subscription, its attempts.
    with django_assert_num_queries(5):
        assert len(get(request.id).json()["attempts"]) == attempt_count
