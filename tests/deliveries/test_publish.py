"""POST /events and /events/batch: one event for everybody who takes it, all or nothing."""

import json
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from deliveries import idempotency, publishing, sql
from deliveries.models import Event, IdempotencyKey, WebhookRequest
from deliveries.publishing import NewEvent
from subscriptions.ids import new_id
from tests.expected import REQUEST_ID, invalid, no_scope, problem
from tests.threads import at_once

pytestmark = pytest.mark.django_db


@pytest.fixture
def post(client_with_key):
    """Post a body, as bytes or as JSON, to a path below /events."""

    def post_to(body, path="", client=None, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        made = {"HTTP_" + name.upper(): value for name, value in headers.items()}
        return (client or client_with_key).post(
            f"/events{path}", data, content_type="application/json", HTTP_REQUEST_ID=REQUEST_ID, **made
        )

    return post_to


def rows_of(event_id):
    return {row.subscription_id: row for row in WebhookRequest.objects.filter(event_id=event_id)}


def test_it_stores_the_event_once_and_a_request_for_each_that_takes_it(post, make_subscription):
    takers = [make_subscription(event_types=types) for types in ([], ["*"], ["invoice.*"], ["a", "invoice.paid"])]
    for types in (["invoice"], ["invoice.paid.*"], ["other"], ["invoice.open"]):
        make_subscription(event_types=types)
    answer = post(b'{"event_type": "invoice.paid", "body":  {"b": 1.50,"a":"\\u00e9"}}')
    [event] = Event.objects.all()
    rows = rows_of(event.id)
    assert answer.status_code == 202
    assert answer["Content-Type"] == "application/json"
    assert answer.json() == {
        "event_id": str(event.id),
        "requests": [
            {"subscription_id": str(row.subscription_id), "request_id": str(row.id), "status": "pending"}
            for row in sorted(rows.values(), key=lambda row: row.id)
        ],
    }
    assert set(rows) == {taker.id for taker in takers}
    assert (event.tenant, event.event_type, event.body) == ("", "invoice.paid", b'{"b": 1.50,"a":"\\u00e9"}')
    for row in rows.values():
        assert (row.payload, row.body, row.event_type, row.tenant) == (None, event.body, "invoice.paid", "")
        assert (row.status, row.status_reason, row.settled_at, row.attempt_count) == ("pending", "", None, 0)
        assert row.next_attempt_at == row.received_at


def test_an_event_that_nobody_takes_is_stored_too(post):
    answer = post({"event_type": "a", "body": None})
    [event] = Event.objects.all()
    assert answer.status_code == 202
    assert answer.json() == {"event_id": str(event.id), "requests": []}
    assert event.body == b"null"


def test_it_reaches_the_tenant_it_is_for_and_no_other(post, make_subscription):
    subscriptions = {tenant: make_subscription(tenant=tenant) for tenant in ("", "acme", "other")}
    for tenant in ("acme", ""):
        call = {"event_type": "a", "body": 1} | ({"tenant": tenant} if tenant else {})
        event_id = post(call).json()["event_id"]
        rows = rows_of(event_id)
        assert {row.tenant for row in rows.values()} == {tenant}
        assert set(rows) == {subscriptions[tenant].id}
        assert Event.objects.get(id=event_id).tenant == tenant


def test_a_key_of_a_tenant_publishes_for_that_tenant_alone(post, make_client, make_subscription):
    own = make_subscription(tenant="acme")
    make_subscription(tenant="other")
    client = make_client("publish", tenant="acme")
    for call in ({"event_type": "a", "body": 1}, {"event_type": "a", "body": 1, "tenant": "acme"}):
        answer = post(call, client=client)
        assert [made["subscription_id"] for made in answer.json()["requests"]] == [str(own.id)]
    refused = post({"event_type": "a", "body": 1, "tenant": "other"}, client=client)
    assert refused.status_code == 400
    assert refused.json() == invalid(("/tenant", "wrong_tenant", "This API key is bound to another tenant."))
    batch = {"events": [{"event_type": "a", "body": 1}, {"event_type": "a", "body": 1, "tenant": "other"}]}
    refused = post(batch, "/batch", client=client)
    assert refused.json() == invalid(
        ("/events/1/tenant", "wrong_tenant", "This API key is bound to another tenant.")
    )
    assert Event.objects.count() == 2


@pytest.mark.parametrize("path", ["", "/batch", "/preview"])
def test_it_takes_the_scope_publish(post, make_client, path):
    answer = post({"event_type": "a", "body": 1}, path, client=make_client("read", "manage"))
    assert answer.status_code == 403
    assert answer.json() == no_scope("publish")


def test_a_filter_is_asked(post, make_subscription):
    paid = make_subscription(filter={"body": {"total": {"$gte": 100}}})
    everything = make_subscription(filter={})
    typed = make_subscription(filter={"event_type": {"$startsWith": "invoice."}})
    reached = {}
    for total in (99.99, 100):
        call = {"event_type": "invoice.paid", "body": {"total": total}}
        reached[total] = set(rows_of(post(call).json()["event_id"]))
    assert reached == {99.99: {everything.id, typed.id}, 100: {everything.id, typed.id, paid.id}}


def test_a_disabled_subscription_misses_it_and_the_request_says_so(post, make_subscription):
    disabled = make_subscription(status="disabled")
    make_subscription(status="disabled", event_types=["other"])
    make_subscription(status="disabled", filter={"body": 2})
    answer = post({"event_type": "a", "body": 1}).json()
    [row] = WebhookRequest.objects.all()
    assert answer["requests"] == [
        {"subscription_id": str(disabled.id), "request_id": str(row.id), "status": "skipped"}
    ]
    assert (row.status, row.status_reason) == ("skipped", "the subscription is disabled")
    assert (row.next_attempt_at, row.settled_at) == (None, row.received_at)
    # Recovered, it is delivered with the event's payload.
    assert WebhookRequest.objects.replay() == 1
    row.refresh_from_db()
    assert (row.status, row.body) == ("pending", b"1")


def test_a_paused_subscription_holds_it_and_a_deleted_one_is_not_there(post, make_subscription):
    paused = make_subscription(status="paused")
    make_subscription(deleted_at=Now())
    answer = post({"event_type": "a", "body": 1}).json()
    assert [(made["subscription_id"], made["status"]) for made in answer["requests"]] == [
        (str(paused.id), "pending")
    ]


def test_an_event_type_called_null_is_one_like_any_other(post, make_subscription):
    make_subscription(event_types=["null"])
    make_subscription(event_types=["null.*"])
    assert len(post({"event_type": "null", "body": 1}).json()["requests"]) == 1
    assert len(post({"event_type": "null.null", "body": 1}).json()["requests"]) == 1


def test_it_is_delivered(post, receiver, make_subscription, deliver):
    make_subscription(receiver.url)
    make_subscription(receiver.url)
    post(b'{"event_type": "a", "body": {"n" : 1.0}}')
    deliver()
    assert [arrival.body for arrival in receiver.arrivals] == [b'{"n" : 1.0}'] * 2
    assert set(WebhookRequest.objects.values_list("status", flat=True)) == {"delivered"}


BAD_TYPE = "An event type has letters, digits, _ and -, in segments joined by dots."


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"event_type": "a"}', ("/body", "required", "This field is required.")),
        (b'{"body": 1}', ("/event_type", "required", "This field is required.")),
        (b'{"event_type": "a b", "body": 1}', ("/event_type", "invalid_event_type", BAD_TYPE)),
        (b'{"event_type": 1, "body": 1}', ("/event_type", "invalid", "Expected `str`, got `int`")),
        (b'{"event_type": "a", "body": 1, "tenant": null}', ("/tenant", "invalid", "Expected `str`, got `null`")),
        (b'{"event_type": "a", "body": 1, "type": 2}', ("/type", "unknown", "This field is not known.")),
        (
            b'{"event_type": "a", "body": 1, "tenant": "\\u0000"}',
            ("/tenant", "invalid_tenant", "A tenant has at most 255 characters, and no NUL."),
        ),
        (
            b'{"event_type": "a", "body": 1, "tenant": "' + b"x" * 256 + b'"}',
            ("/tenant", "invalid_tenant", "A tenant has at most 255 characters, and no NUL."),
        ),
        (b"[]", ("", "invalid", "Expected `object`, got `array`")),
    ],
)
def test_it_refuses_what_is_no_event(post, body, error):
    answer = post(body)
    assert (answer.status_code, answer.json()) == (400, invalid(error))
    assert not Event.objects.exists()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "parse_error"),
        (b'{"event_type": "a", "body": \xff}', "parse_error"),
        (b'{"event_type": "a", "body": ' + b"[" * 100_000, "parse_error"),
        (b'{"event_type": "a", "body": 1, "body": 2}', "duplicate_member"),
        (b'{"event_type": "a", "body": "1", "body": "2"}', "duplicate_member"),
        (b'{"event_type": "a", "body": 1, "tenant": "x", "tenant": "y"}', "duplicate_member"),
    ],
)
def test_it_refuses_what_is_ambiguous_or_no_json(post, body, code):
    for path, sent in (("", body), ("/batch", b'{"events": [' + body + b"]}"), ("/preview", body)):
        answer = post(sent, path)
        assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert not Event.objects.exists()


def test_a_quote_in_a_tenants_name_is_no_duplicate(post):
    event_id = post({"event_type": "a", "body": '"', "tenant": 'an "other"'}).json()["event_id"]
    assert Event.objects.get(id=event_id).tenant == 'an "other"'


@pytest.mark.parametrize("path", ["", "/batch", "/preview"])
def test_it_refuses_bodies_that_are_too_large_or_not_json(post, client_with_key, settings, path):
    settings.MAX_BODY_BYTES = 100
    assert post({"event_type": "a", "body": "x" * 100}, path).status_code == 413
    assert client_with_key.post(f"/events{path}", "a=1", content_type="text/plain").status_code == 415


# --- Batches -----------------------------------------------------------------------------


def test_a_batch_is_answered_in_its_order(post, make_subscription):
    both, one = make_subscription(event_types=["a", "b"]), make_subscription(event_types=["b"], tenant="acme")
    events = [{"event_type": kind, "body": n} for n, kind in enumerate("abcab")]
    events[4]["tenant"] = "acme"
    answer = post({"events": events}, "/batch")
    stored = {str(event.id): event for event in Event.objects.all()}
    told = [stored[each["event_id"]] for each in answer.json()["events"]]
    assert answer.status_code == 202
    assert [(event.event_type, event.body, event.tenant) for event in told] == [
        ("a", b"0", ""),
        ("b", b"1", ""),
        ("c", b"2", ""),
        ("a", b"3", ""),
        ("b", b"4", "acme"),
    ]
    taken = [[made["subscription_id"] for made in each["requests"]] for each in answer.json()["events"]]
    assert taken == [[str(both.id)], [str(both.id)], [], [str(both.id)], [str(one.id)]]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"events": []}, ("/events", "invalid_length", "A batch has 1 to 1000 events.")),
        ({"events": [1] * 1001}, ("/events", "invalid_length", "A batch has 1 to 1000 events.")),
        (
            {"events": [{"event_type": "a", "body": 1}, 2]},
            ("/events/1", "invalid", "Expected `object`, got `int`"),
        ),
        (
            {"events": [{"event_type": "a", "body": 1}, {"event_type": "?", "body": 1}]},
            ("/events/1/event_type", "invalid_event_type", BAD_TYPE),
        ),
        ({"events": {}}, ("/events", "invalid", "Expected `array`, got `object`")),
        ({"event": []}, ("/event", "unknown", "This field is not known.")),
    ],
)
def test_a_batch_with_one_bad_event_stores_none(post, body, error):
    answer = post(body, "/batch")
    assert (answer.status_code, answer.json()) == (400, invalid(error))
    assert not Event.objects.exists()


def test_a_batch_of_a_thousand_takes_as_few_queries_as_one_of_two(post, make_subscription):
    for tenant in ("", "acme"):
        make_subscription(tenant=tenant, event_types=["a.*"])
    counts = []
    for size in (2, 1000):
        events = [{"event_type": f"a.t{n}", "body": n, "tenant": "acme" if n % 2 else ""} for n in range(size)]
        with CountedStatements() as statements:
            answer = post({"events": events}, "/batch", idempotency_key=str(size))
        counts.append(statements.count)
        assert len(answer.json()["events"]) == size
        assert all(len(each["requests"]) == 1 for each in answer.json()["events"])
    assert counts == [6, 6]  # look for the key, claim it, events, match, requests, keep the answer


def test_an_event_for_many_takes_three_statements(post, make_subscription):
    for _ in range(20):
        make_subscription()
    with CountedStatements() as statements, CaptureQueriesContext(connection) as queries:
        assert len(post({"event_type": "a", "body": 1}).json()["requests"]) == 20
    assert statements.count == 3
    # The API key and the note of its use, and the savepoint of the test's own transaction.
    assert len(queries) <= 5


def test_a_batch_that_would_make_too_many_requests_is_refused(post, make_subscription, monkeypatch):
    monkeypatch.setattr(publishing, "MAX_REQUESTS", 3)
    make_subscription()
    make_subscription()
    answer = post({"events": [{"event_type": "a", "body": 1}] * 2}, "/batch")
    detail = "These events would make more than 3 requests. Publish them in smaller batches."
    assert answer.status_code == 413
    assert answer.json() == problem(413, "too_large", detail)
    assert not Event.objects.exists()


def test_filters_that_take_too_long_are_given_up_and_nothing_is_stored(post, make_subscription, monkeypatch):
    make_subscription()
    monkeypatch.setattr(publishing, "FILTER_SECONDS", -1)
    assert post({"event_type": "a", "body": 1}).status_code == 202
    make_subscription(filter={"body": 1})
    answer = post({"event_type": "a", "body": 1})
    detail = "The filters of the subscriptions take too long for this. Publish fewer or smaller events at once."
    assert (answer.status_code, answer.json()) == (422, problem(422, "too_slow", detail))
    assert post({"event_type": "a", "body": 1}, "/preview").json() == answer.json()
    assert Event.objects.count() == 1


class CountedStatements:
    """Counts the statements that go past Django's cursors to the server."""

    def __enter__(self):
        self.count = 0
        self._run = sql.run

        def run(statement, parameters):
            self.count += 1
            return self._run(statement, parameters)

        sql.run = run
        return self

    def __exit__(self, *error):
        sql.run = self._run


# --- Idempotency-Key ---------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/batch"])
def test_the_same_call_again_gets_the_first_answer_and_stores_nothing(post, make_subscription, path):
    make_subscription()
    event = {"event_type": "a", "body": 1}
    body = {"events": [event, event]} if path else event
    first = post(body, path, idempotency_key="order-4711")
    make_subscription()
    second = post(body, path, idempotency_key="order-4711")
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.content == second.content
    assert "Idempotency-Replayed" not in first
    assert second["Idempotency-Replayed"] == "true"
    assert Event.objects.count() == WebhookRequest.objects.count() == (2 if path else 1)


def test_another_body_under_the_same_key_is_refused(post):
    post({"event_type": "a", "body": 1}, idempotency_key="k")
    answer = post({"event_type": "a", "body": 2}, idempotency_key="k")
    detail = "This Idempotency-Key was used with another body within the last 24 hours."
    assert (answer.status_code, answer.json()) == (422, problem(422, "idempotency_key_reused", detail))
    batch = post({"events": [{"event_type": "a", "body": 1}]}, "/batch", idempotency_key="k")
    assert batch.status_code == 422
    assert Event.objects.count() == 1


def test_keys_of_different_tenants_do_not_meet_and_those_of_one_do(post, make_client):
    call = {"event_type": "a", "body": 1}
    clients = [
        make_client(),
        make_client(tenant=""),
        make_client(tenant="acme"),
        make_client(tenant="acme"),
        make_client(tenant="x" * 255),
    ]
    answers = [post(call, client=client, idempotency_key="k") for client in clients]
    assert ["Idempotency-Replayed" in answer for answer in answers] == [False, False, False, True, False]
    assert answers[2].content == answers[3].content
    assert Event.objects.count() == 4


def test_a_key_holds_for_24_hours(post):
    call = {"event_type": "a", "body": 1}
    first = post(call, idempotency_key="k").json()
    IdempotencyKey.objects.update(created_at=Now() - timedelta(hours=23, minutes=59))
    assert post(call, idempotency_key="k").json() == first
    IdempotencyKey.objects.update(created_at=Now() - timedelta(hours=24))
    again = post({"event_type": "a", "body": 2}, idempotency_key="k")
    assert again.status_code == 202
    assert again.json() != first
    assert post({"event_type": "a", "body": 2}, idempotency_key="k").json() == again.json()


@pytest.mark.parametrize("key", ["", " ", " a", "a,b", "ü", "x" * 256])
@pytest.mark.parametrize("path", ["", "/batch"])
def test_a_key_that_is_none_is_refused(post, path, key):
    event = {"event_type": "a", "body": 1}
    answer = post({"events": [event]} if path else event, path, idempotency_key=key)
    detail = (
        "An Idempotency-Key has 1 to 255 characters of visible ASCII, with spaces inside but no comma, "
        "and is given once."
    )
    assert (answer.status_code, answer.json()) == (400, problem(400, "invalid_idempotency_key", detail))
    assert not Event.objects.exists()


def test_what_is_refused_keeps_no_key(post):
    assert post({"event_type": "?", "body": 1}, idempotency_key="k").status_code == 400
    assert post({"event_type": "a", "body": 1}, idempotency_key="k").status_code == 202


@pytest.mark.django_db(transaction=True)
def test_fifty_equal_calls_at_once_are_one_event(make_subscription):
    subscription = make_subscription()
    key = idempotency.Key.of_publish({"Idempotency-Key": "k"}, None, b"the body")

    def call():
        return publishing.publish_call([NewEvent(event_type="a", payload=b"1")], key, is_batch=False)

    answers = at_once(50, call)
    assert len({answer.body for answer in answers}) == 1
    assert sum(not answer.is_replayed for answer in answers) == 1
    [row] = WebhookRequest.objects.all()
    assert (row.subscription_id, row.event_id) == (subscription.id, Event.objects.get().id)


# --- When the database is away -----------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("key_text", [None, "k"])
def test_a_commit_of_which_nobody_knows_is_not_made_twice(make_subscription, monkeypatch, key_text):
    make_subscription()
    headers = {} if key_text is None else {"Idempotency-Key": key_text}
    key = idempotency.Key.of_publish(headers, None, b"the body")
    commits = []

    class Doubtful(transaction.Atomic):
        """Commits, and loses the connection before the answer comes."""

        def __exit__(self, *error):
            super().__exit__(*error)
            commits.append(error[0])
            if len(commits) == 1:
                connection.close()
                raise OperationalError("the connection is lost")

    monkeypatch.setattr(publishing.transaction, "atomic", lambda: Doubtful(None, True, False))
    answer = publishing.publish_call([NewEvent(event_type="a", payload=b"1")], key, is_batch=False)
    assert commits == [None, None]
    [event], [row] = Event.objects.all(), WebhookRequest.objects.all()
    assert json.loads(answer.body) == {
        "event_id": str(event.id),
        "requests": [
            {"subscription_id": str(row.subscription_id), "request_id": str(row.id), "status": "pending"}
        ],
    }
    assert not answer.is_replayed


@pytest.mark.django_db(transaction=True)
def test_it_answers_503_while_the_database_is_away_and_then_202(post, client_with_key, settings, monkeypatch):
    event = {"event_type": "a", "body": 1}
    settings.DEBUG = True
    client_with_key.credentials()  # without a key nothing but the publishing needs the database
    with monkeypatch.context() as away:
        connection.close()
        away.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        away.setitem(connection.settings_dict, "PORT", 1)
        answers = [
            post(event),
            post({"events": [event]}, "/batch"),
            post(event, idempotency_key="k"),
        ]
    for answer in answers:
        assert (answer.status_code, answer["Retry-After"]) == (503, "2")
        assert answer.json() == problem(
            503, "unavailable", "The service cannot store anything right now. Try again."
        )
    assert post(event).status_code == 202
    assert Event.objects.count() == 1


def test_subscriptions_disabled_or_deleted_since_the_match_get_a_skipped_request(make_subscription):
    gone, disabled = make_subscription(), make_subscription()
    event = NewEvent(event_type="a", payload=b"1")
    sql.run(publishing.INSERT_EVENTS, publishing._event_columns([event]))
    type(gone).objects.filter(id=gone.id).update(deleted_at=Now())
    type(gone).objects.filter(id=disabled.id).disable()
    parameters = {
        "ids": [new_id(), new_id()],
        "event_ids": [event.id, event.id],
        "subscription_ids": [gone.id, disabled.id],
        "event_types": ["a", "a"],
        "reason": publishing.DISABLED,
    }
    assert [row[3] for row in sql.run(publishing.INSERT_REQUESTS, parameters)] == ["skipped", "skipped"]
