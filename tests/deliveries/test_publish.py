"""POST /events: one event for everybody who takes it."""

import pytest
from django.db.models.functions import Now

from deliveries import publishing
from deliveries.models import Event, WebhookRequest
from tests.expected import invalid, no_scope, problem

pytestmark = pytest.mark.django_db


def rows_of(event_id):
    return {row.subscription_id: row for row in WebhookRequest.objects.filter(event_id=event_id)}


def test_it_stores_the_event_once_and_a_request_for_each_that_takes_it(publish, make_subscription):
    takers = [make_subscription(event_types=types) for types in ([], ["*"], ["invoice.*"], ["a", "invoice.paid"])]
    for types in (["invoice"], ["invoice.paid.*"], ["other"], ["invoice.open"]):
        make_subscription(event_types=types)
    answer = publish(b'{"event_type": "invoice.paid", "body":  {"b": 1.50,"a":"\\u00e9"}}')
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


def test_an_event_that_nobody_takes_is_stored_too(publish):
    answer = publish({"event_type": "a", "body": None})
    [event] = Event.objects.all()
    assert answer.status_code == 202
    assert answer.json() == {"event_id": str(event.id), "requests": []}
    assert event.body == b"null"


def test_it_reaches_the_tenant_it_is_for_and_no_other(publish, make_subscription):
    subscriptions = {tenant: make_subscription(tenant=tenant) for tenant in ("", "acme", "other")}
    for tenant in ("acme", ""):
        call = {"event_type": "a", "body": 1} | ({"tenant": tenant} if tenant else {})
        event_id = publish(call).json()["event_id"]
        rows = rows_of(event_id)
        assert {row.tenant for row in rows.values()} == {tenant}
        assert set(rows) == {subscriptions[tenant].id}
        assert Event.objects.get(id=event_id).tenant == tenant


def test_a_key_of_a_tenant_publishes_for_that_tenant_alone(publish, make_client, make_subscription):
    own = make_subscription(tenant="acme")
    make_subscription(tenant="other")
    client = make_client("publish", tenant="acme")
    for call in ({"event_type": "a", "body": 1}, {"event_type": "a", "body": 1, "tenant": "acme"}):
        answer = publish(call, client=client)
        assert [made["subscription_id"] for made in answer.json()["requests"]] == [str(own.id)]
    refused = publish({"event_type": "a", "body": 1, "tenant": "other"}, client=client)
    assert refused.status_code == 400
    assert refused.json() == invalid(("/tenant", "wrong_tenant", "This API key is bound to another tenant."))
    batch = {"events": [{"event_type": "a", "body": 1}, {"event_type": "a", "body": 1, "tenant": "other"}]}
    refused = publish(batch, "/batch", client=client)
    assert refused.json() == invalid(
        ("/events/1/tenant", "wrong_tenant", "This API key is bound to another tenant.")
    )
    assert Event.objects.count() == 2


@pytest.mark.parametrize("path", ["", "/batch", "/preview"])
def test_it_takes_the_scope_publish(publish, make_client, path):
    answer = publish({"event_type": "a", "body": 1}, path, client=make_client("read", "manage"))
    assert answer.status_code == 403
    assert answer.json() == no_scope("publish")


def test_a_filter_is_asked(publish, make_subscription):
    paid = make_subscription(filter={"body": {"total": {"$gte": 100}}})
    everything = make_subscription(filter={})
    typed = make_subscription(filter={"event_type": {"$startsWith": "invoice."}})
    reached = {}
    for total in (99.99, 100):
        call = {"event_type": "invoice.paid", "body": {"total": total}}
        reached[total] = set(rows_of(publish(call).json()["event_id"]))
    assert reached == {99.99: {everything.id, typed.id}, 100: {everything.id, typed.id, paid.id}}


def test_a_disabled_subscription_misses_it_and_the_request_says_so(publish, make_subscription):
    disabled = make_subscription(status="disabled")
    make_subscription(status="disabled", event_types=["other"])
    make_subscription(status="disabled", filter={"body": 2})
    answer = publish({"event_type": "a", "body": 1}).json()
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


def test_a_paused_subscription_holds_it_and_a_deleted_one_is_not_there(publish, make_subscription):
    paused = make_subscription(status="paused")
    make_subscription(deleted_at=Now())
    answer = publish({"event_type": "a", "body": 1}).json()
    assert [(made["subscription_id"], made["status"]) for made in answer["requests"]] == [
        (str(paused.id), "pending")
    ]


def test_an_event_type_called_null_is_one_like_any_other(publish, make_subscription):
    make_subscription(event_types=["null"])
    make_subscription(event_types=["null.*"])
    assert len(publish({"event_type": "null", "body": 1}).json()["requests"]) == 1
    assert len(publish({"event_type": "null.null", "body": 1}).json()["requests"]) == 1


def test_it_is_delivered(publish, receiver, make_subscription, deliver):
    make_subscription(receiver.url)
    make_subscription(receiver.url)
    publish(b'{"event_type": "a", "body": {"n" : 1.0}}')
    deliver()
    assert [arrival.body for arrival in receiver.arrivals] == [b'{"n" : 1.0}'] * 2
    assert set(WebhookRequest.objects.values_list("status", flat=True)) == {"delivered"}


def test_filters_that_take_too_long_are_given_up_and_nothing_is_stored(publish, make_subscription, monkeypatch):
    make_subscription()
    monkeypatch.setattr(publishing, "FILTER_SECONDS", -1)
    assert publish({"event_type": "a", "body": 1}).status_code == 202
    make_subscription(filter={"body": 1})
    answer = publish({"event_type": "a", "body": 1})
    detail = "The filters of the subscriptions take too long for this. Publish fewer or smaller events at once."
    assert (answer.status_code, answer.json()) == (422, problem(422, "too_slow", detail))
    assert publish({"event_type": "a", "body": 1}, "/preview").json() == answer.json()
    assert Event.objects.count() == 1
