"""GET /events, GET /events/{id} and POST /events/preview."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from deliveries import previews
from deliveries.models import Event, WebhookRequest
from subscriptions.ids import lowest_id_at, new_id
from subscriptions.models import Subscription
from tests.expected import REQUEST_ID, invalid, problem, rfc3339

pytestmark = pytest.mark.django_db


@pytest.fixture
def make_event():
    """Store an event, as a publish call would have; at a time of its own if one is given."""

    def make(event_type="invoice.paid", payload=b'{"n" : 1.0}', **fields):
        if "published_at" in fields:
            fields = {"id": lowest_id_at(fields["published_at"])} | fields
        event = Event.objects.create(event_type=event_type, payload=payload, **fields)
        event.refresh_from_db()
        return event

    return make


@pytest.fixture
def get(client_with_key):
    def get_path(path, client=None):
        return (client or client_with_key).get(path, HTTP_REQUEST_ID=REQUEST_ID)

    return get_path


def listed(event):
    return {
        "id": str(event.id),
        "tenant": event.tenant,
        "event_type": event.event_type,
        "published_at": rfc3339(event.published_at),
        "findings": event.findings,
    }


def test_it_lists_events_newest_first_without_their_payloads(get, make_event):
    events = [make_event(), make_event(tenant="acme", findings=[{"pointer": "/n", "code": "type", "detail": "…"}])]
    answer = get("/events")
    assert answer.status_code == 200
    assert answer.json() == {
        "next": None,
        "previous": None,
        "results": [listed(event) for event in reversed(events)],
    }


def test_it_lists_them_in_pages(get, make_event):
    ids = [str(make_event().id) for _ in range(5)][::-1]
    first = get("/events?limit=2").json()
    second = get(first["next"]).json()
    third = get(second["next"]).json()
    assert [[event["id"] for event in page["results"]] for page in (first, second, third)] == [
        ids[:2],
        ids[2:4],
        ids[4:],
    ]
    assert third["next"] is None
    assert get(second["previous"]).json()["results"] == first["results"]


def test_it_filters_them(get, make_event):
    noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
    events = [
        make_event("a", tenant="acme", published_at=noon - timedelta(hours=2)),
        make_event("b", tenant="acme", published_at=noon),
        make_event("a", published_at=noon + timedelta(hours=2)),
    ]

    def found(query):
        ids = [event["id"] for event in get(f"/events?{query}").json()["results"]]
        return [number for number, event in enumerate(events) if str(event.id) in ids]

    assert found("tenant=acme") == [0, 1]
    assert found("tenant=") == [2]
    assert found("event_type=a") == [0, 2]
    assert found("event_type=a&tenant=acme") == [0]
    assert found("published_after=2026-11-24T12:00:00Z") == [1, 2]
    assert found("published_before=2026-11-24T12:00:00Z") == [0]
    assert found("published_after=2026-11-24T11:00:00Z&published_before=2026-11-24T13:00:00Z") == [1]
    assert found("event_type=c") == []


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("type=a", ("/type", "unknown", "This parameter is not known.")),
        ("limit=251", ("/limit", "max_value", "Ensure this value is less than or equal to 250.")),
        (
            "published_after=today",
            (
                "/published_after",
                "invalid",
                (
                    "Datetime has wrong format. Use one of these formats instead: "
                    "YYYY-MM-DDThh:mm[:ss[.uuuuuu]][+HH:MM|-HH:MM|Z]."
                ),
            ),
        ),
    ],
)
def test_it_refuses_filters_that_make_no_sense(get, query, error):
    answer = get(f"/events?{query}")
    assert (answer.status_code, answer.json()) == (400, invalid(error))


def test_a_tenant_sees_its_own_events_alone(get, make_event, make_client):
    own, other = make_event(tenant="acme"), make_event(tenant="other")
    client = make_client("read", tenant="acme")
    assert [event["id"] for event in get("/events", client).json()["results"]] == [str(own.id)]
    assert get("/events?tenant=other", client).json()["results"] == []
    assert get(f"/events/{own.id}", client).status_code == 200
    missing = get(f"/events/{other.id}", client)
    assert missing.status_code == 404
    assert missing.json() == get(f"/events/{new_id()}", client).json()
    assert missing.json() == problem(404, "not_found", "There is no such thing here.")


def test_it_takes_the_scope_read(get, make_event, make_client):
    event = make_event()
    for path in ("/events", f"/events/{event.id}"):
        assert get(path, make_client("publish", "manage")).status_code == 403
        assert get(path, make_client("read")).status_code == 200


def test_it_shows_one_event_with_its_payload_and_requests(
    get, make_event, make_subscription, make_request, settle
):
    event = make_event(payload=b'{"n" : 1.0, "text": "\\u00e9"}')
    requests = [make_request(make_subscription(), payload=None, event=event) for _ in range(2)]
    settle(requests[0], "skipped", status_reason="the subscription is disabled")
    answer = get(f"/events/{event.id}")
    assert answer.status_code == 200
    assert answer.json() == listed(event) | {
        "payload": {"n": 1.0, "text": "é"},
        "request_count": 2,
        "requests": [
            {
                "request_id": str(requests[0].id),
                "subscription_id": str(requests[0].subscription_id),
                "status": "skipped",
                "status_reason": "the subscription is disabled",
                "attempt_count": 0,
                "error": None,
            },
            {
                "request_id": str(requests[1].id),
                "subscription_id": str(requests[1].subscription_id),
                "status": "pending",
                "status_reason": "",
                "attempt_count": 0,
                "error": None,
            },
        ],
    }


def test_the_payload_is_shown_byte_for_byte(get, make_event):
    payload = b'{"n" : 1.0,  "n": 2e0, "text": "\\u00e9"}'
    assert b'"payload":' + payload in get(f"/events/{make_event(payload=payload).id}").content


def test_lists_and_pages_take_as_many_queries_for_many_as_for_one(
    get, make_event, make_subscription, make_request
):
    subscription = make_subscription()
    event = make_event()
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connection) as listing:
            get("/events")
        with CaptureQueriesContext(connection) as looking:
            get(f"/events/{event.id}")
        counts.append((len(listing), len(looking)))
        for _ in range(5):
            make_request(subscription, payload=None, event=event)
            make_event()
    # The API key and the note of its use, and then: the list within its time limit, which is a
    # savepoint here; the event and its requests.
    assert counts == [(6, 4), (6, 4)]


# --- Preview -----------------------------------------------------------------------------


def test_a_preview_says_what_would_become_of_an_event_at_each_subscription(client_with_key, make_subscription):
    hour = timedelta(hours=1)
    since = datetime.now(UTC)
    cases = [
        ({}, ("deliver", None, None, "It would be delivered.")),
        (
            {"event_types": ["invoice.open", "order.*"]},
            ("ignore", "event_type", None, "It takes invoice.open, order.*, and not invoice.paid."),
        ),
        (
            {"filter": {"body": {"total": {"$gte": 100}}}},
            ("ignore", "filter", "/body/total/$gte", "/body/total should be at least 100, and is 19.90."),
        ),
        ({"status": "disabled"}, ("skip", "disabled", None, "It is disabled.")),
        (
            {"status": "disabled", "status_reason": "410 Gone"},
            ("skip", "disabled", None, "It is disabled: 410 Gone."),
        ),
        (
            {"status": "disabled", "event_types": ["other"]},
            ("ignore", "event_type", None, "It takes other, and not invoice.paid."),
        ),
        (
            {"status": "paused"},
            ("hold", "paused", None, "It is paused, and would be delivered once it is resumed."),
        ),
        (
            {"circuit_opened_at": since, "circuit_probe_at": since + hour},
            ("hold", "circuit_open", None, "Its circuit is open, and it would be delivered once that closes."),
        ),
        (
            {"ordered": True, "blocked_until": since + hour},
            ("hold", "ordered", None, "It is delivered in order, and an earlier request waits for its retry."),
        ),
        (
            {"rate_limit": 0.01, "rate_times": [since], "rate_counts": [1]},
            ("hold", "rate_limited", None, "Its rate limit is used up for the moment."),
        ),
        ({"rate_limit": 0.01}, ("deliver", None, None, "It would be delivered.")),
    ]
    made = [(make_subscription(tenant="acme", **fields), told) for fields, told in cases]
    make_subscription(tenant="other")
    make_subscription(tenant="acme", deleted_at=Now())
    answer = preview(
        client_with_key, b'{"event_type": "invoice.paid", "body": {"total": 19.90}, "tenant": "acme"}'
    )
    assert answer.status_code == 200
    assert answer.json() == {
        "subscriptions": [
            {
                "subscription_id": str(subscription.id),
                "result": result,
                "reason": reason,
                "clause": clause,
                "detail": detail,
            }
            for subscription, (result, reason, clause, detail) in reversed(made)
        ]
    }
    assert not Event.objects.exists()
    assert not WebhookRequest.objects.exists()


def test_a_preview_tells_the_first_of_many_event_types(client_with_key, make_subscription):
    make_subscription(event_types=[f"a{number}" for number in range(250)])
    [told] = preview(client_with_key, b'{"event_type": "b", "body": 1}').json()["subscriptions"]
    assert told["detail"] == "It takes a0, a1, a2, a3, a4 and 245 more, and not b."


def test_a_preview_reads_many_subscriptions_in_parts(client_with_key, make_subscription, monkeypatch):
    monkeypatch.setattr(previews, "ROWS_AT_ONCE", 2)
    made = [str(make_subscription().id) for _ in range(5)]
    told = preview(client_with_key, b'{"event_type": "a", "body": 1}').json()["subscriptions"]
    assert [each["subscription_id"] for each in told] == made[::-1]


def test_a_preview_that_would_be_too_large_is_refused(client_with_key, make_subscription):
    conditions = {"body": {"x" * 8_000: 1}}
    Subscription.objects.bulk_create([Subscription(filter=conditions) for _ in range(500)])
    answer = preview(client_with_key, b'{"event_type": "a", "body": 1}')
    detail = "There is too much to say of so many subscriptions: the answer would have more than 4 MB."
    assert answer.json() == problem(413, "too_large", detail)


def test_a_preview_agrees_with_what_publishing_does(client_with_key, make_subscription):
    for status in Subscription.Status.values:
        for types in ([], ["a"], ["b"]):
            for conditions in (None, {"body": 1}, {"body": 2}):
                make_subscription(status=status, event_types=types, filter=conditions)
    body = b'{"event_type": "a", "body": 1}'
    foretold = preview(client_with_key, body).json()["subscriptions"]
    made = client_with_key.post("/events", body, content_type="application/json").json()["requests"]
    expected = {"deliver": "pending", "hold": "pending", "skip": "skipped"}
    assert {each["subscription_id"]: each["status"] for each in made} == {
        each["subscription_id"]: expected[each["result"]] for each in foretold if each["result"] != "ignore"
    }
    assert len(made) == 3 * 2 * 2


def test_a_preview_shows_a_tenant_its_own_subscriptions_alone(make_client, make_subscription):
    own = make_subscription(tenant="acme")
    make_subscription(tenant="other")
    client = make_client("publish", tenant="acme")
    answer = preview(client, b'{"event_type": "a", "body": 1}')
    assert [each["subscription_id"] for each in answer.json()["subscriptions"]] == [str(own.id)]
    refused = preview(client, b'{"event_type": "a", "body": 1, "tenant": "other"}')
    assert refused.json() == invalid(("/tenant", "wrong_tenant", "This API key is bound to another tenant."))


def test_a_preview_takes_as_many_queries_for_many_subscriptions_as_for_one(client_with_key, make_subscription):
    counts = []
    preview(client_with_key, b'{"event_type": "a", "body": 1}')  # reads which event types are checked
    for _ in range(2):
        make_subscription()
        with CaptureQueriesContext(connection) as queries:
            preview(client_with_key, b'{"event_type": "a", "body": 1}')
        counts.append(len(queries))
        for _ in range(5):
            make_subscription()
    assert counts == [3, 3]  # the API key, the note of its use, the subscriptions


def preview(client, body):
    return client.post("/events/preview", body, content_type="application/json", HTTP_REQUEST_ID=REQUEST_ID)
