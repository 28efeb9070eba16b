"""GET /status/request/{id} and GET /status/subscription/{id}: whole bodies, limits, tenants, queries."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from deliveries.attempts import ANSWERS_TOLD, ATTEMPTS_TOLD
from deliveries.models import Event, WebhookRequest
from deliveries.outcome import HINTS, ErrorClass
from tests.expected import REQUEST_ID, attempt_body, invalid, problem, rfc3339

NO_REQUEST = problem(404, "not_found", "There is no such thing here.")
NO_SUBSCRIPTION = problem(404, "not_found", "There is no such subscription.")
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def get(client_with_key):
    def get(path):
        return client_with_key.get(path, headers={"Request-Id": REQUEST_ID})

    return get


# --- One request ---------------------------------------------------------------------


def test_it_shows_a_request_that_was_just_accepted(get, make_subscription, make_request):
    subscription = make_subscription()
    request = make_request(subscription)
    answer = get(f"/status/request/{request.id}")
    assert answer.json() == {
        "request_id": str(request.id),
        "subscription_id": str(subscription.id),
        "event_id": None,
        "event_type": "invoice.paid",
        "status": "pending",
        "hold_reason": None,
        "received_at": rfc3339(request.received_at),
        "attempt_count": 0,
        "next_attempt_at": rfc3339(request.received_at),
        "findings": None,
        "attempts": [],
    }
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"


def test_it_shows_the_whole_attempt_log_oldest_first(get, make_subscription, make_request, make_attempt, settle):
    subscription = make_subscription()
    request = settle(make_request(subscription, attempt_count=3), "delivered")
    third = make_attempt(
        request, 3, response_headers="HTTP/1.1 200 OK\r\nContent-Type: text/plain", response_body=b"thanks \xff"
    )
    first = make_attempt(request, 1, success=False, status_code=None, error="dns", response_ms=40)
    second = make_attempt(
        request,
        2,
        success=False,
        status_code=503,
        error="http_5xx",
        response_ms=99,
        dns_ms=1,
        connect_ms=2,
        tls_ms=3,
        first_byte_ms=98,
    )
    answer = get(f"/status/request/{request.id}")
    assert answer.json() == {
        "request_id": str(request.id),
        "subscription_id": str(subscription.id),
        "event_id": None,
        "event_type": "invoice.paid",
        "status": "delivered",
        "hold_reason": None,
        "received_at": rfc3339(request.received_at),
        "attempt_count": 3,
        "next_attempt_at": None,
        "findings": None,
        "attempts": [
            attempt_body(
                first,
                success=False,
                status_code=None,
                error="dns",
                hint=HINTS[ErrorClass.DNS],
                response_ms=40,
                response_headers="",
                response_body="",
            ),
            attempt_body(
                second,
                success=False,
                status_code=503,
                error="http_5xx",
                hint=HINTS[ErrorClass.HTTP_5XX],
                response_ms=99,
                dns_ms=1,
                connect_ms=2,
                tls_ms=3,
                first_byte_ms=98,
                response_headers="",
                response_body="",
            ),
            attempt_body(
                third,
                response_headers="HTTP/1.1 200 OK\r\nContent-Type: text/plain",
                response_body="thanks \N{REPLACEMENT CHARACTER}",
            ),
        ],
    }


@pytest.mark.parametrize("error", ErrorClass)
def test_it_says_of_every_error_what_may_be_done(get, make_subscription, make_request, make_attempt, error):
    request = make_request(make_subscription())
    make_attempt(request, success=False, status_code=None, error=error.value)
    [attempt] = get(f"/status/request/{request.id}").json()["attempts"]
    assert (attempt["error"], attempt["hint"]) == (error.value, HINTS[error])


@pytest.mark.parametrize("path", ["/status/request/{}", "/requests/{}"])
def test_it_tells_the_answers_to_the_last_attempts_alone(get, make_subscription, make_request, make_attempt, path):
    request = make_request(make_subscription(), attempt_count=ANSWERS_TOLD + 1)
    for number in range(1, ANSWERS_TOLD + 2):
        make_attempt(request, number, response_headers="HTTP/1.1 200 OK", response_body=b"thanks")
    told = [
        (attempt["attempt_number"], attempt["response_headers"], attempt["response_body"])
        for attempt in get(path.format(request.id)).json()["attempts"]
    ]
    last = [(number, "HTTP/1.1 200 OK", "thanks") for number in range(2, ANSWERS_TOLD + 2)]
    assert told == [(1, "", ""), *last]


@pytest.mark.parametrize("path", ["/status/request/{}", "/requests/{}"])
def test_it_tells_a_million_bytes_of_answers(get, make_subscription, make_request, make_attempt, path):
    request, other = [make_request(make_subscription(), attempt_count=30) for _ in range(2)]
    for number in range(1, 31):
        make_attempt(request, number, response_headers="x" * 30_000, response_body=b"\1" * 20_000)
        make_attempt(other, number)
    told = [
        (len(attempt["response_headers"]), len(attempt["response_body"]))
        for attempt in get(path.format(request.id)).json()["attempts"]
    ]
    assert told == [(0, 0)] * 10 + [(30_000, 20_000)] * 20


@pytest.mark.parametrize("path", ["/status/request/{}", "/requests/{}"])
def test_it_tells_the_last_attempts_of_a_request_that_was_replayed_without_end(
    get, make_subscription, make_request, make_attempt, path
):
    request = make_request(make_subscription(), attempt_count=ATTEMPTS_TOLD + 7)
    for number in (1, 7, 8, ATTEMPTS_TOLD + 7):
        make_attempt(request, number)
    told = [attempt["attempt_number"] for attempt in get(path.format(request.id)).json()["attempts"]]
    assert told == [8, ATTEMPTS_TOLD + 7]


def test_it_says_more_of_an_error_where_more_is_known(get, make_subscription, make_request, make_attempt):
    request = make_request(make_subscription())
    make_attempt(request, success=False, status_code=None, error="tls", specific_hint="It has expired.")
    [attempt] = get(f"/status/request/{request.id}").json()["attempts"]
    assert (attempt["error"], attempt["hint"]) == ("tls", "It has expired.")


@pytest.mark.parametrize("status", ["delivered", "failed", "canceled", "skipped"])
def test_it_shows_how_a_request_ended(get, make_subscription, make_request, settle, status):
    request = settle(make_request(make_subscription()), status)
    body = get(f"/status/request/{request.id}").json()
    assert (body["status"], body["next_attempt_at"], body["hold_reason"]) == (status, None, None)


@pytest.mark.parametrize(
    ("subscription_status", "status", "hold_reason"),
    [
        ("paused", "pending", "paused"),
        ("active", "pending", None),
        ("paused", "delivered", None),
    ],
)
def test_it_says_why_a_pending_request_is_held(
    get, make_subscription, make_request, settle, subscription_status, status, hold_reason
):
    request = make_request(make_subscription(status=subscription_status))
    if status != "pending":
        settle(request, status)
    assert get(f"/status/request/{request.id}").json()["hold_reason"] == hold_reason


def test_it_names_the_event_that_a_request_belongs_to(get, make_subscription):
    event = Event.objects.create(event_type="invoice.paid", payload=b"{}")
    request = WebhookRequest.objects.create(
        subscription=make_subscription(), event=event, event_type="invoice.paid"
    )
    assert get(f"/status/request/{request.id}").json()["event_id"] == str(event.id)


def test_it_answers_404_for_an_unknown_request(get):
    answer = get(f"/status/request/{uuid.uuid4()}")
    assert answer.json() == NO_REQUEST
    assert answer.status_code == 404


def test_it_shows_a_tenant_no_request_of_another(make_client, make_subscription, make_request):
    client = make_client("read", tenant="acme")
    own = make_request(make_subscription(tenant="acme"))
    foreign = make_request(make_subscription(tenant="globex"))
    assert client.get(f"/status/request/{own.id}").json()["request_id"] == str(own.id)
    answer = client.get(f"/status/request/{foreign.id}", headers={"Request-Id": REQUEST_ID})
    assert answer.json() == NO_REQUEST
    assert answer.status_code == 404


@pytest.mark.parametrize("attempt_count", [0, 1, 6])
def test_it_reads_a_request_in_four_queries(
    get, make_subscription, make_request, make_attempt, django_assert_num_queries, attempt_count
):
    request = make_request(make_subscription())
    for number in range(1, attempt_count + 1):
        make_attempt(request, number)
    # The key, its last use, the request with its subscription, the attempts.
    with django_assert_num_queries(4) as captured:
        assert len(get(f"/status/request/{request.id}").json()["attempts"]) == attempt_count
    assert not any('"payload"' in query["sql"] for query in captured)


# --- One subscription ----------------------------------------------------------------


def test_it_shows_the_latest_attempts_of_a_subscription_newest_first(
    get, make_subscription, make_request, make_attempt
):
    subscription = make_subscription()
    one, other = make_request(subscription), make_request(subscription)
    make_attempt(make_request(make_subscription()), attempted_at=NOON)
    oldest = make_attempt(one, 1, attempted_at=NOON, success=False, status_code=404, error="http_4xx")
    newest = make_attempt(one, 2, attempted_at=NOON + timedelta(minutes=2))
    middle = make_attempt(other, 1, attempted_at=NOON + timedelta(minutes=1), response_body=b"not shown here")
    answer = get(f"/status/subscription/{subscription.id}")
    hint = HINTS[ErrorClass.HTTP_4XX]
    assert answer.json() == {
        "subscription_id": str(subscription.id),
        "attempts": [
            attempt_body(newest, request_id=str(one.id)),
            attempt_body(middle, request_id=str(other.id)),
            attempt_body(
                oldest, request_id=str(one.id), success=False, status_code=404, error="http_4xx", hint=hint
            ),
        ],
    }
    assert answer.status_code == 200


def test_it_shows_a_subscription_without_attempts(get, make_subscription):
    subscription = make_subscription()
    assert get(f"/status/subscription/{subscription.id}").json() == {
        "subscription_id": str(subscription.id),
        "attempts": [],
    }


@pytest.mark.parametrize(
    ("query", "count"),
    [("", 50), ("?limit=1", 1), ("?limit=50", 50), ("?limit=250", 250), ("?limit=0250", 250)],
)
def test_it_shows_as_many_as_asked_and_fifty_unasked(
    get, make_subscription, make_request, make_attempt, query, count
):
    subscription = make_subscription()
    request = make_request(subscription)
    for number in range(1, 253):
        make_attempt(request, number, attempted_at=NOON + timedelta(seconds=number))
    attempts = get(f"/status/subscription/{subscription.id}{query}").json()["attempts"]
    assert [attempt["attempt_number"] for attempt in attempts] == list(range(252, 252 - count, -1))


@pytest.mark.parametrize(
    "limit", ["0", "251", "-1", "", "ten", "1.5", "1e2", "+5", " 5", "%00", "²", "٥", "9" * 5000, "0000000501"]
)
def test_it_refuses_any_other_limit(get, make_subscription, limit):
    answer = get(f"/status/subscription/{make_subscription().id}?limit={limit}")
    assert answer.json() == invalid(("/limit", "invalid_limit", "The limit is a number from 1 to 250."))
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("limits=5", ("/limits", "unknown", "This parameter is not known.")),
        ("limit=5&limit=6", ("/limit", "repeated", "Give this parameter once.")),
    ],
)
def test_it_refuses_parameters_that_it_does_not_take(get, make_subscription, query, error):
    answer = get(f"/status/subscription/{make_subscription().id}?{query}")
    assert (answer.status_code, answer.json()) == (400, invalid(error))


def test_it_answers_404_for_an_unknown_subscription(get):
    answer = get(f"/status/subscription/{uuid.uuid4()}")
    assert answer.json() == NO_SUBSCRIPTION
    assert answer.status_code == 404


def test_it_shows_a_tenant_no_attempts_of_another(make_client, make_subscription):
    client = make_client("read", tenant="acme")
    own, foreign = make_subscription(tenant="acme"), make_subscription(tenant="globex")
    assert client.get(f"/status/subscription/{own.id}").status_code == 200
    answer = client.get(f"/status/subscription/{foreign.id}", headers={"Request-Id": REQUEST_ID})
    assert answer.json() == NO_SUBSCRIPTION
    assert answer.status_code == 404


@pytest.mark.parametrize("attempt_count", [0, 1, 60])
def test_it_reads_a_subscription_in_four_queries(
    get, make_subscription, make_request, make_attempt, django_assert_num_queries, attempt_count
):
    subscription = make_subscription()
    for _ in range(attempt_count):
        make_attempt(make_request(subscription))
    # The key, its last use, the subscription, the attempts; the bodies of answers stay where they are.
    with django_assert_num_queries(4) as captured:
        assert len(get(f"/status/subscription/{subscription.id}").json()["attempts"]) == min(attempt_count, 50)
    assert not any('"response_body"' in query["sql"] for query in captured)


@pytest.mark.parametrize("scope", ["publish", "manage"])
def test_it_wants_a_key_that_may_read(make_client, make_subscription, make_request, scope):
    subscription = make_subscription()
    client = make_client(scope)
    paths = (f"/status/request/{make_request(subscription).id}", f"/status/subscription/{subscription.id}")
    assert [client.get(path).status_code for path in paths] == [403, 403]
