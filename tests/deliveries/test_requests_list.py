"""GET /requests: whole rows, filters, pages, tenants, scopes, a pinned number of queries."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from deliveries.models import Event, WebhookRequest
from subscriptions.ids import lowest_id_at
from tests.expected import REQUEST_ID, invalid, no_scope, request_body, rfc3339

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def get(client_with_key):
    """Read a list with these parameters; returns the answer."""

    def get(client=client_with_key, **parameters):
        return client.get("/requests", parameters, headers={"Request-Id": REQUEST_ID})

    return get


@pytest.fixture
def listed(get):
    """Read a list with these parameters; returns the ids in it."""

    def listed(client=None, **parameters):
        answer = get(**({} if client is None else {"client": client}), **parameters)
        assert answer.status_code == 200, answer.content
        return [row["request_id"] for row in answer.json()["results"]]

    return listed


def ids_of(*requests: WebhookRequest) -> list[str]:
    return [str(request.id) for request in requests]


def test_it_lists_requests_newest_first_without_payloads_and_attempts(
    get, make_subscription, make_request, make_attempt, settle
):
    subscription = make_subscription(tenant="acme")
    failed = settle(make_request(subscription, attempt_count=1), "failed", error="http_5xx", trigger="retry")
    make_attempt(failed, success=False, status_code=500, error="http_5xx")
    event = Event.objects.create(event_type="invoice.paid", payload=b"{}", tenant="acme")
    pending = make_request(subscription, None, event=event)
    assert get().json() == {
        "next": None,
        "previous": None,
        "results": [
            request_body(pending, event_id=str(event.id), tenant="acme"),
            request_body(
                failed,
                tenant="acme",
                status="failed",
                error="http_5xx",
                trigger="retry",
                settled_at=rfc3339(failed.settled_at),
                attempt_count=1,
                next_attempt_at=None,
            ),
        ],
    }


def test_it_lists_nothing_where_there_is_nothing(get, db):
    assert get().json() == {"next": None, "previous": None, "results": []}


# --- Filters -------------------------------------------------------------------------


def test_it_filters_by_subscription(listed, make_subscription, make_request):
    subscription = make_subscription()
    one, _, other = make_request(subscription), make_request(make_subscription()), make_request(subscription)
    assert listed(subscription=str(subscription.id)) == ids_of(other, one)
    assert listed(subscription=str(uuid.uuid4())) == []


def test_it_filters_by_tenant_exactly(listed, make_subscription, make_request):
    acme, nobody = make_request(make_subscription(tenant="acme")), make_request(make_subscription())
    make_request(make_subscription(tenant="acme ltd"))
    assert listed(tenant="acme") == ids_of(acme)
    assert listed(tenant="") == ids_of(nobody)


@pytest.mark.parametrize("status", WebhookRequest.Status.values)
def test_it_filters_by_status(listed, make_subscription, make_request, settle, status):
    subscription = make_subscription()
    requests = {"pending": make_request(subscription)}
    for settled in ("delivered", "failed", "canceled", "skipped"):
        requests[settled] = settle(make_request(subscription), settled)
    assert listed(status=status) == ids_of(requests[status])


def test_it_filters_by_event_type_exactly(listed, make_subscription, make_request):
    subscription = make_subscription()
    wanted = make_request(subscription, event_type="invoice.paid")
    make_request(subscription, event_type="invoice.paid.twice")
    assert listed(event_type="invoice.paid") == ids_of(wanted)


def test_it_filters_by_the_error_of_the_last_attempt(listed, make_subscription, make_request):
    subscription = make_subscription()
    wanted = make_request(subscription, error="timeout")
    make_request(subscription, error="dns")
    make_request(subscription)
    assert listed(error="timeout") == ids_of(wanted)


@pytest.fixture
def hourly(make_subscription, make_request):
    """Three requests, received at 11, at 12 and at 13, newest first."""
    subscription = make_subscription()
    times = [NOON + timedelta(hours=hour) for hour in (1, 0, -1)]
    return [make_request(subscription, id=lowest_id_at(time), received_at=time) for time in times]


@pytest.mark.parametrize(
    ("parameters", "hours"),
    [
        ({"received_after": "2026-11-24T12:00:00Z"}, [13, 12]),
        ({"received_after": "2026-11-24T12:00:00.000001Z"}, [13]),
        ({"received_before": "2026-11-24T12:00:00Z"}, [11]),
        ({"received_before": "2026-11-24T12:00:00.000001Z"}, [12, 11]),
        ({"received_after": "2026-11-24T13:00:00+01:00", "received_before": "2026-11-24T13:00:00Z"}, [12]),
        ({"received_after": "2026-11-24T12:00:00Z", "received_before": "2026-11-24T12:00:00Z"}, []),
        ({"received_after": "0001-01-01T00:00:00Z", "received_before": "9999-12-31T23:59:59Z"}, [13, 12, 11]),
    ],
)
def test_it_filters_by_the_time_of_receipt_from_the_first_to_before_the_second(listed, hourly, parameters, hours):
    assert listed(**parameters) == ids_of(*(request for request in hourly if request.received_at.hour in hours))


def test_it_finds_a_request_whose_id_was_made_by_a_clock_minutes_off(listed, make_subscription, make_request):
    subscription = make_subscription()
    for minutes in (-4, 4):
        made_at = NOON + timedelta(minutes=minutes)
        make_request(subscription, id=lowest_id_at(made_at), received_at=NOON)
    assert len(listed(received_after=rfc3339(NOON), received_before=rfc3339(NOON + timedelta(seconds=1)))) == 2


def test_it_lists_what_fits_every_filter_given(listed, make_subscription, make_request, settle):
    subscription = make_subscription(tenant="acme")
    fields = {"event_type": "a", "error": "dns", "id": lowest_id_at(NOON), "received_at": NOON}
    wanted = settle(make_request(subscription, **fields), "failed")
    given = {
        "subscription": str(subscription.id),
        "tenant": "acme",
        "status": "failed",
        "event_type": "a",
        "error": "dns",
        "received_after": rfc3339(NOON),
        "received_before": rfc3339(NOON + timedelta(seconds=1)),
    }
    assert listed(**given) == ids_of(wanted)
    others = {
        "subscription": str(make_subscription().id),
        "tenant": "globex",
        "status": "delivered",
        "event_type": "b",
        "error": "tls",
        "received_after": rfc3339(NOON + timedelta(seconds=1)),
        "received_before": rfc3339(NOON),
    }
    for name, value in others.items():
        assert listed(**given | {name: value}) == [], name


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"colour": "red"}, ("/colour", "unknown", "This parameter is not known.")),
        ({"Status": "failed"}, ("/Status", "unknown", "This parameter is not known.")),
        ({"status": "lost"}, ("/status", "invalid_choice", '"lost" is not a valid choice.')),
        ({"error": "any"}, ("/error", "invalid_choice", '"any" is not a valid choice.')),
        ({"subscription": "5"}, ("/subscription", "invalid", "Must be a valid UUID.")),
        (
            {"event_type": "invoice.*"},
            (
                "/event_type",
                "invalid_event_type",
                "An event type has letters, digits, _ and -, in segments joined by dots.",
            ),
        ),
        (
            {"tenant": "a\0"},
            ("/tenant", "null_characters_not_allowed", "Null characters are not allowed."),
        ),
        ({"limit": "0"}, ("/limit", "min_value", "Ensure this value is greater than or equal to 1.")),
        ({"limit": "251"}, ("/limit", "max_value", "Ensure this value is less than or equal to 250.")),
        ({"cursor": "x"}, ("/cursor", "invalid_cursor", "This cursor is not one of ours.")),
    ],
)
def test_it_refuses_other_parameters(get, db, parameters, error):
    answer = get(**parameters)
    assert answer.json() == invalid(error)
    assert answer.status_code == 400


@pytest.mark.parametrize("name", ["received_after", "received_before"])
@pytest.mark.parametrize("text", ["noon", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00"])
def test_it_refuses_what_is_no_time(get, db, name, text):
    answer = get(**{name: text})
    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/{name}"]


# --- Pages ---------------------------------------------------------------------------


def test_it_goes_through_all_pages_and_back(client_with_key, make_subscription, make_request):
    subscription = make_subscription()
    requests = [make_request(subscription) for _ in range(5)][::-1]
    url, pages = "/requests?limit=2&status=pending", []
    while url is not None:
        page = client_with_key.get(url).json()
        pages.append([row["request_id"] for row in page["results"]])
        last, url = page, page["next"]
    assert pages == [ids_of(*requests[:2]), ids_of(*requests[2:4]), ids_of(requests[4])]
    before = client_with_key.get(last["previous"]).json()
    assert [row["request_id"] for row in before["results"]] == ids_of(*requests[2:4])


# --- Why they wait -------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/requests", "/requests/{id}", "/status/request/{id}"])
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"status": "paused"}, "paused"),
        ({"status": "disabled"}, "disabled"),
        ({"circuit_opened_at": NOON}, "circuit_open"),
        ({"rate_limit": 1 / 600, "rate_counts": [1]}, "rate_limited"),
        ({"ordered": True, "blocked_until": datetime(2200, 1, 1, tzinfo=UTC)}, "ordered"),
    ],
)
def test_it_says_why_a_request_is_held(client_with_key, make_subscription, make_request, path, fields, reason):
    if "rate_counts" in fields:
        fields = fields | {"rate_times": [datetime.now(UTC)]}
    request = make_request(make_subscription(**fields))
    body = client_with_key.get(path.format(id=request.id)).json()
    row = body["results"][0] if "results" in body else body
    assert row["hold_reason"] == reason


def test_it_says_what_waits_for_another_of_an_ordered_subscription(get, make_subscription, make_request):
    subscription, other = make_subscription(ordered=True), make_subscription(ordered=True)
    first, second, third = (make_request(subscription) for _ in range(3))
    alone = make_request(other)
    reasons = {row["request_id"]: row["hold_reason"] for row in get().json()["results"]}
    assert reasons == {
        str(first.id): None,
        str(second.id): "ordered",
        str(third.id): "ordered",
        str(alone.id): None,
    }
    assert [request.hold_reason for request in (first, second, third, alone)] == [None, "ordered", "ordered", None]


def test_it_says_what_waits_for_a_call_in_flight_of_an_ordered_subscription(get, make_subscription, make_request):
    subscription = make_subscription(ordered=True)
    waiting = make_request(subscription)
    lease_end = datetime.now(UTC) + timedelta(minutes=1)
    in_flight = make_request(subscription, lease_token=uuid.uuid4(), next_attempt_at=lease_end)
    reasons = {row["request_id"]: row["hold_reason"] for row in get().json()["results"]}
    assert reasons == {str(in_flight.id): None, str(waiting.id): "ordered"}
    # Once its lease has run out it is next, and waits for nobody.
    WebhookRequest.objects.filter(id=in_flight.id).update(next_attempt_at=waiting.received_at)
    reasons = {row["request_id"]: row["hold_reason"] for row in get().json()["results"]}
    assert reasons == {str(in_flight.id): None, str(waiting.id): "ordered"}


# --- Whom, how much, how long --------------------------------------------------------


def test_it_shows_a_tenant_its_own_alone(listed, make_client, make_subscription, make_request):
    own = make_request(make_subscription(tenant="acme"))
    foreign = make_request(make_subscription(tenant="globex"))
    client = make_client("read", tenant="acme")
    assert listed(client) == ids_of(own)
    assert listed(client, tenant="acme") == ids_of(own)
    assert listed(client, tenant="globex") == []
    assert listed(client, subscription=str(foreign.subscription_id)) == []
    assert listed(make_client("read", tenant="")) == []


def test_it_does_not_let_a_cursor_of_another_tenant_out(make_client, make_subscription, make_request):
    subscription = make_subscription(tenant="globex")
    for _ in range(3):
        make_request(subscription)
    url = make_client("read", tenant="globex").get("/requests?limit=1").json()["next"]
    assert make_client("read", tenant="acme").get(url).json()["results"] == []


@pytest.mark.parametrize("scope", ["publish", "manage"])
def test_it_wants_a_key_that_may_read(make_client, scope):
    answer = make_client(scope).get("/requests", headers={"Request-Id": REQUEST_ID})
    assert answer.json() == no_scope("read")
    assert answer.status_code == 403


@pytest.mark.parametrize("count", [1, 40])
def test_it_takes_as_many_queries_for_many_as_for_one(
    get, make_subscription, make_request, django_assert_num_queries, count
):
    get()  # from here on the key's last use is noted
    for number in range(count):
        make_request(make_subscription(ordered=number % 2 == 0), error="dns")
    # The key, its last use, the limit of time within a transaction, the requests, their subscriptions.
    with django_assert_num_queries(7) as captured:
        assert len(get().json()["results"]) == count
    assert not any('"payload"' in query["sql"] or '"secret"' in query["sql"] for query in captured)
