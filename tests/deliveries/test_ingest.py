"""POST /ingest through both of its doors: the DRF view, and the WSGI callable in front of Django."""

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deliveries import queue
from deliveries.models import WebhookRequest
from tests.conftest import ingest_body, signature_of
from tests.deliveries.ingesting import MISSING, envelope, stored_payload
from tests.expected import REQUEST_ID


def test_it_stores_a_request_that_is_due_and_answers_202(post_ingest, make_subscription):
    subscription = make_subscription(tenant="acme")
    answer = post_ingest(ingest_body(subscription.id, "invoice.paid", '{"n": 1}'))
    row = WebhookRequest.objects.values().get()
    assert answer.status == 202
    assert answer.body == b'{"request_id":"%s"}' % str(row["id"]).encode()
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Request-Id"] == REQUEST_ID
    assert row | {"payload": bytes(row["payload"])} == {
        "id": row["id"],
        "subscription_id": subscription.id,
        "event_id": None,
        "tenant": "acme",
        "event_type": "invoice.paid",
        "payload": b'{"n": 1}',
        "received_at": row["received_at"],
        "status": "pending",
        "trigger": "initial",
        "next_attempt_at": row["received_at"],
        "settled_at": None,
        "lease_token": None,
        "attempt_count": 0,
        "failure_count": 0,
        "lost_count": 0,
        "error": "",
        "status_reason": "",
        "findings": None,
    }
    assert row["id"].version == 7


def test_it_takes_the_members_of_the_body_in_any_order_and_spacing(post_ingest, make_subscription):
    subscription = make_subscription()
    answer = post_ingest(
        f'\n{{ "body" : [1, 2] ,\t"event_type":"a",\r\n"subscription_id" : "{subscription.id}" }} '.encode()
    )
    assert answer.status == 202
    assert stored_payload() == b"[1, 2]"


def test_it_makes_two_requests_of_the_same_call_made_twice(post_ingest, make_subscription):
    body = ingest_body(make_subscription().id)
    ids = {post_ingest(body).json()["request_id"] for _ in range(2)}
    assert {str(request.id) for request in WebhookRequest.objects.all()} == ids
    assert len(ids) == 2


def test_it_accepts_for_a_paused_subscription(post_ingest, make_subscription):
    assert post_ingest(ingest_body(make_subscription(status="paused").id)).status == 202
    assert WebhookRequest.objects.get().hold_reason == "paused"


def test_it_needs_no_api_key_outside_development(post_ingest, make_subscription, settings):
    settings.DEBUG = False
    assert post_ingest(ingest_body(make_subscription().id)).status == 202


def test_it_is_delivered_as_it_came(post_ingest, make_subscription, receiver, deliver):
    answer = post_ingest(
        ingest_body(make_subscription(receiver.url).id, "invoice.paid", '{"b":1.0, "a":"\\u00e9"}')
    )
    assert deliver() == 1
    [arrival] = receiver.arrivals
    assert arrival.body == b'{"b":1.0, "a":"\\u00e9"}'
    assert arrival.headers["webhook-id"] == answer.json()["request_id"]
    assert arrival.headers["X-Webhook-Event"] == "invoice.paid"
    assert WebhookRequest.objects.get().status == "delivered"


def test_it_answers_202_with_redis_away(post_ingest, make_subscription, no_redis):
    assert queue.push_wake_up() is False
    assert post_ingest(ingest_body(make_subscription().id)).status == 202
    assert WebhookRequest.objects.get().status == "pending"


@pytest.mark.parametrize(
    ("patterns", "event_type", "status"),
    [
        ([], "invoice.paid", 202),
        (["*"], "invoice.paid", 202),
        (["invoice.paid"], "invoice.paid", 202),
        (["invoice.paid"], "invoice.sent", 204),
        (["invoice.paid"], "invoice.paid.late", 204),
        (["invoice.*"], "invoice.paid", 202),
        (["invoice.*"], "invoice.item.added", 202),
        (["invoice.*"], "invoice", 204),
        (["invoice.*"], "invoices.paid", 204),
        (["order.made", "invoice.*"], "invoice.paid", 202),
        (["order.made", "order.*"], "invoice.paid", 204),
    ],
)
def test_it_stores_only_what_the_subscription_takes(post_ingest, make_subscription, patterns, event_type, status):
    answer = post_ingest(ingest_body(make_subscription(event_types=patterns).id, event_type))
    assert answer.status == status
    assert WebhookRequest.objects.count() == (1 if status == 202 else 0)
    if status == 204:
        assert answer.body == b""
        assert "Content-Type" not in answer.headers
        assert answer.headers["Request-Id"] == REQUEST_ID


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ({"body": {"n": {"$gte": 9007199254740993}}}, 202),
        ({"body": {"n": {"$gt": 9007199254740993}}}, 204),
        ({"event_type": "invoice.paid", "tenant": "acme"}, 202),
        ({"event_type": "invoice.open"}, 204),
        ({"tenant": "other"}, 204),
        ({}, 202),
    ],
)
def test_it_stores_only_what_meets_the_filter(post_ingest, make_subscription, conditions, status):
    subscription = make_subscription(tenant="acme", filter=conditions)
    answer = post_ingest(ingest_body(subscription.id, body='{"n": 9007199254740993}'))
    assert answer.status == status
    assert WebhookRequest.objects.count() == (status == 202)


@pytest.fixture
def shared_subscription(make_subscription):
    return make_subscription(event_types=["invoice.*"])


TOLD_HEADERS = ("Content-Type", "Request-Id", "Retry-After", "WWW-Authenticate")


def what_was_told(answer):
    """Return what a caller sees of an answer; an id that was made for it is masked."""
    body = answer.body
    if answer.status == 202:
        body = body.replace(answer.json()["request_id"].encode(), b"an id")
    return answer.status, body, {name: answer.headers.get(name) for name in TOLD_HEADERS}


# The calls of a run share the database of the test.
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_both_doors_answer_the_same_whatever_is_sent(post_ingest_at_each_door, shared_subscription, data):
    members = {
        "subscription_id": st.sampled_from([f'"{shared_subscription.id}"', f'"{MISSING}"', "5", None]),
        "event_type": st.sampled_from(['"invoice.paid"', '"order.made"', '"*"', "null", None]),
        "body": st.sampled_from(["{}", '"é"', "NaN", "[" * 2000, None]),
    }
    well_formed = st.fixed_dictionaries(members).map(lambda changes: envelope(**changes))
    body = data.draw(st.one_of(well_formed, st.binary(max_size=100)))
    texts = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)
    headers = {
        "X-Webhook-Signature": data.draw(st.one_of(st.just(signature_of(body)), texts)),
        "Content-Type": data.draw(st.one_of(st.just("application/json"), texts)),
        "Content-Encoding": data.draw(st.sampled_from(["", "identity", "gzip"])),
        "Request-Id": data.draw(st.just(REQUEST_ID)),
    }
    answers = post_ingest_at_each_door(body, headers)
    assert what_was_told(answers["view"]) == what_was_told(answers["wsgi"])
    assert answers["wsgi"].status in (202, 204, 400, 401, 404, 415)
