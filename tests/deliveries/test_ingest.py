"""POST /ingest through both of its doors: the DRF view, and the WSGI callable in front of Django."""

import contextlib
import hashlib
import hmac
import json
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import msgspec
import pytest
import redis
from cachetools import TTLCache
from django.db import DataError, OperationalError, connection, connections
from django.db.models.functions import Now
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from deliveries import ingestion, queue
from deliveries.envelopes import IngestEnvelope
from deliveries.models import WebhookRequest
from subscriptions import cache
from subscriptions.models import Subscription, new_id
from tests.conftest import SECRET, ingest_body, signature_of, signed_headers
from tests.expected import REQUEST_ID, invalid, problem

DISABLED = problem(409, "subscription_disabled", "This subscription is disabled.")
NOT_FOUND = problem(404, "not_found", "There is no such subscription.")
UNAVAILABLE = problem(503, "unavailable", "The service cannot store anything right now. Try again.")
MISSING_SIGNATURE = problem(
    401,
    "signature_missing",
    "Sign the raw request body and send X-Webhook-Signature: sha256=<hex HMAC-SHA256>.",
)
WRONG_SIGNATURE = problem(
    401,
    "signature_invalid",
    "The signature does not match the raw request body under this subscription's secret. "
    "The key of a whsec_ secret is what its base64 part decodes to.",
)
EVENT_TYPE_RULE = "An event type has letters, digits, _ and -, in segments joined by dots."
MISSING = uuid.UUID("0198c5b6-3b7e-7bd1-8f0e-5a8d7a0a1b2c")


def assert_refused(answer, document):
    assert answer.json() == document
    assert answer.status == document["status"]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Request-Id"] == REQUEST_ID
    assert not WebhookRequest.objects.exists()


def stored_payload() -> bytes:
    return bytes(WebhookRequest.objects.get().payload)


# --- Accepted ------------------------------------------------------------------------


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


def test_it_answers_202_with_redis_away(post_ingest, make_subscription, monkeypatch):
    away = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.25, retry=None)
    monkeypatch.setattr(queue, "_connection", away)
    assert queue.push_wake_up() is False
    assert post_ingest(ingest_body(make_subscription().id)).status == 202
    assert WebhookRequest.objects.get().status == "pending"


# --- Event types ---------------------------------------------------------------------


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


# --- Bytes ---------------------------------------------------------------------------

PAYLOADS = [
    '{"z":1,"a":2,"m":3}',
    '{"a":1,"a":2,"a":{"b":1,"b":2}}',
    '{"n":1.0,"m":1e2,"o":1E+2,"p":-0,"q":-0.0,"r":0.10,"s":1e-7}',
    '{"big":123456789012345678901234567890,"safe":9007199254740993,"huge":1e999}',
    '{"escaped":"\\u00e9\\u0041\\/\\"\\\\\\b\\f\\n\\r\\t","plain":"é/"}',
    '{"emoji":"🎉","escaped":"\\ud83c\\udf89","null":"\\u0000"}',
    '{"line":"\u2028\u2029","bidi":"\u202e","bom":"\ufeff"}',
    '{ "spaces" :\t[ 1 ,\r\n 2 ] , "end" : { } }',
    "{}",
    "[]",
    "[[[[[[[[[[]]]]]]]]]]",
    '""',
    '"text"',
    "0",
    "-0.0",
    "null",
    "true",
    '{"":""}',
    '{"text":"' + "x" * 100_000 + '"}',
    "[" * 500 + "]" * 500,
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload[:20].encode().decode("ascii", "replace"))
def test_it_stores_the_payload_byte_for_byte(post_ingest, make_subscription, payload):
    assert post_ingest(ingest_body(make_subscription().id, body=payload)).status == 202
    assert stored_payload() == payload.encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@given(
    value=json_values,
    ensure_ascii=st.booleans(),
    indent=st.sampled_from([None, 0, 3, "\t"]),
    separators=st.sampled_from([(",", ":"), (" , ", " :\n")]),
)
def test_it_cuts_the_payload_out_of_any_json(value, ensure_ascii, indent, separators):
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators)
    raw = ingest_body(MISSING, body=text)
    assert bytes(msgspec.json.decode(raw, type=IngestEnvelope).body) == text.encode()


# --- Signatures ----------------------------------------------------------------------


def test_it_takes_a_signature_made_with_nothing_but_the_standard_library(post_ingest, make_subscription):
    body = ingest_body(make_subscription(secret="shared secret").id)
    signature = "sha256=" + hmac.new(b"shared secret", body, hashlib.sha256).hexdigest()
    assert post_ingest(body, {"X-Webhook-Signature": signature}).status == 202


@pytest.mark.parametrize("secret", ["x", "x" * 255, "ключ 🔑", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
def test_it_takes_a_signature_under_any_kind_of_secret(post_ingest, make_subscription, secret):
    body = ingest_body(make_subscription(secret=secret).id)
    assert post_ingest(body, signed_headers(body, secret)).status == 202


@pytest.mark.parametrize("headers", [{}, {"X-Webhook-Signature": ""}])
def test_it_answers_401_without_a_signature(post_ingest, make_subscription, headers):
    assert_refused(post_ingest(ingest_body(make_subscription().id), headers), MISSING_SIGNATURE)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: "nonsense",
        lambda body: "sha256=",
        lambda body: signature_of(body).removeprefix("sha256="),
        lambda body: signature_of(body)[:-1],
        lambda body: signature_of(body) + "0",
        lambda body: signature_of(body).replace("sha256", "sha512"),
        lambda body: signature_of(body, "another secret"),
        lambda body: signature_of(body + b" "),
        lambda body: signature_of(json.dumps(json.loads(body), separators=(",", ":")).encode()),
        lambda body: signature_of(b""),
        lambda body: f"{signature_of(body)}, {signature_of(body)}",
        lambda body: "sha256=é\xff",
    ],
)
def test_it_answers_401_for_a_wrong_signature(post_ingest, make_subscription, spoil):
    body = ingest_body(make_subscription().id)
    assert_refused(post_ingest(body, {"X-Webhook-Signature": spoil(body)}), WRONG_SIGNATURE)


def test_it_answers_401_for_the_signature_of_another_subscription(post_ingest, make_subscription):
    make_subscription(secret=SECRET)
    body = ingest_body(make_subscription(secret="its own").id)
    assert_refused(post_ingest(body, signed_headers(body, SECRET)), WRONG_SIGNATURE)


# --- Refusals ------------------------------------------------------------------------


def test_it_answers_404_for_an_unknown_subscription_whatever_the_signature(post_ingest):
    body = ingest_body(MISSING)
    assert_refused(post_ingest(body), NOT_FOUND)
    assert_refused(post_ingest(body, {}), NOT_FOUND)


def test_it_answers_409_for_a_disabled_subscription_to_those_who_can_sign(post_ingest, make_subscription):
    body = ingest_body(make_subscription(status="disabled").id)
    assert_refused(post_ingest(body), DISABLED)
    assert_refused(post_ingest(body, {}), MISSING_SIGNATURE)


def test_it_answers_409_when_another_process_has_just_disabled_the_subscription(post_ingest, make_subscription):
    subscription = make_subscription()
    Subscription.objects.cached(subscription.id)
    Subscription.objects.filter(id=subscription.id).update(status="disabled")
    assert Subscription.objects.cached(subscription.id).status == "active"
    assert_refused(post_ingest(ingest_body(subscription.id)), DISABLED)


# --- Changed by another process since it was cached -------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}])
def test_it_takes_events_at_once_when_another_process_has_enabled_the_subscription(
    post_ingest, make_subscription, headers
):
    subscription = make_subscription(status="disabled")
    Subscription.objects.cached(subscription.id)
    Subscription.objects.filter(id=subscription.id).update(status="active")
    body = ingest_body(subscription.id)
    assert post_ingest(body, signed_headers(body, **headers)).status == 202
    assert WebhookRequest.objects.count() == 1


def test_it_takes_a_new_secret_at_once_when_another_process_has_set_it(post_ingest, make_subscription):
    subscription = make_subscription()
    Subscription.objects.cached(subscription.id)
    subscription.set_secret("another")
    Subscription.objects.filter(id=subscription.id).update(secret=subscription.secret)
    body = ingest_body(subscription.id)
    assert post_ingest(body, signed_headers(body, "another")).status == 202


def test_it_asks_once_more_before_it_refuses_and_not_before_it_accepts(
    post_ingest, make_subscription, django_assert_num_queries, monkeypatch
):
    # What is cached stays, however long the test takes.
    monkeypatch.setattr(cache, "_entries", TTLCache(maxsize=cache.SIZE, ttl=cache.SECONDS, timer=lambda: 0.0))
    body = ingest_body(make_subscription().id)
    assert post_ingest(body).status == 202
    with django_assert_num_queries(0):  # beside the statement that stores it
        assert post_ingest(body).status == 202
    with django_assert_num_queries(1):
        assert post_ingest(body, signed_headers(body, "wrong")).status == 401


def envelope(**changes: str | None) -> bytes:
    """Return the body of an ingest call for MISSING; each value is JSON text, None leaves the member out."""
    members = {"subscription_id": f'"{MISSING}"', "event_type": '"invoice.paid"', "body": "{}"} | changes
    return (
        "{" + ",".join(f'"{name}":{value}' for name, value in members.items() if value is not None) + "}"
    ).encode()


@pytest.mark.parametrize(
    ("body", "pointer", "code", "detail"),
    [
        (b"[]", "", "invalid", "Expected `object`, got `array`"),
        (b"null", "", "invalid", "Expected `object`, got `null`"),
        (b"{}", "/subscription_id", "required", "This field is required."),
        (envelope(subscription_id=None), "/subscription_id", "required", "This field is required."),
        (envelope(event_type=None), "/event_type", "required", "This field is required."),
        (envelope(body=None), "/body", "required", "This field is required."),
        (envelope(colour='"red"'), "/colour", "unknown", "This field is not known."),
        (envelope(subscription_id="5"), "/subscription_id", "invalid", "Expected `uuid`, got `int`"),
        (envelope(subscription_id='"x"'), "/subscription_id", "invalid", "Invalid UUID"),
        (envelope(subscription_id="null"), "/subscription_id", "invalid", "Expected `uuid`, got `null`"),
        (envelope(event_type="5"), "/event_type", "invalid", "Expected `str`, got `int`"),
        (envelope(event_type="null"), "/event_type", "invalid", "Expected `str`, got `null`"),
        (envelope(event_type='["a"]'), "/event_type", "invalid", "Expected `str`, got `array`"),
        (envelope(event_type='""'), "/event_type", "invalid_event_type", EVENT_TYPE_RULE),
        (envelope(event_type='"*"'), "/event_type", "invalid_event_type", EVENT_TYPE_RULE),
        (envelope(event_type='"invoice.*"'), "/event_type", "invalid_event_type", EVENT_TYPE_RULE),
        (envelope(event_type='"a b"'), "/event_type", "invalid_event_type", EVENT_TYPE_RULE),
        (envelope(event_type='"a\\u0000"'), "/event_type", "invalid_event_type", EVENT_TYPE_RULE),
        (envelope(event_type=f'"{"x" * 129}"'), "/event_type", "invalid_event_type", EVENT_TYPE_RULE),
    ],
)
def test_it_answers_400_and_says_where_for_a_body_of_another_shape(post_ingest, body, pointer, code, detail):
    assert_refused(post_ingest(body), invalid((pointer, code, detail)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        envelope() + b"{}",
        b"\xef\xbb\xbf" + envelope(),
        envelope().decode().encode("utf-16"),
        envelope(event_type='"\\ud800"'),
        envelope(event_type="XX").replace(b"XX", b'"\xff"'),
        envelope(body="NaN"),
        envelope(body="Infinity"),
        envelope(body="01"),
        envelope(body="1."),
        envelope(body="+1"),
        envelope(body="'a'"),
        envelope(body="[1,]"),
        envelope(body='{"a":}'),
        envelope(body="{a:1}"),
        envelope(body='"\\x41"'),
        envelope(body='"\\ud800"'),
        envelope(body='"\n"'),
        envelope(body='"\0"'),
        envelope(body=""),
        envelope(body="1 2"),
        envelope(body="XX").replace(b"XX", b'"\xff"'),
        envelope(body="XX").replace(b"XX", b'"\xc3("'),
        envelope(body="XX").replace(b"XX", b'"\xed\xa0\x80"'),
        envelope(body="XX").replace(b"XX", b'{"\xc0\x80":1}'),
    ],
)
def test_it_answers_400_for_what_is_not_json(post_ingest, body):
    answer = post_ingest(body)
    detail = answer.json()["detail"]
    assert detail.startswith("The body is not valid JSON: ")
    assert_refused(answer, problem(400, "parse_error", detail))


@pytest.mark.parametrize("payload", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_it_answers_400_for_nesting_without_end(post_ingest, payload):
    refusal = problem(400, "parse_error", "The body is nested too deeply.")
    assert_refused(post_ingest(envelope(body=payload)), refusal)


def test_it_answers_413_for_a_body_over_the_limit_and_not_for_one_at_it(post_ingest, make_subscription, settings):
    subscription = make_subscription()
    body = ingest_body(subscription.id)
    settings.MAX_BODY_BYTES = len(body)
    refusal = problem(413, "too_large", f"The request body may have at most {len(body)} bytes.")
    assert_refused(post_ingest(body + b" "), refusal)
    assert post_ingest(body).status == 202


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/json; charset=hex",
        "application/json; charset=utf-8; charset=latin-1",
        "application/json, application/json",
    ],
)
def test_it_answers_415_for_anything_but_json_in_utf_8(post_ingest, make_subscription, content_type):
    body = ingest_body(make_subscription().id)
    answer = post_ingest(body, signed_headers(body) | {"Content-Type": content_type})
    assert_refused(answer, problem(415, "unsupported_media_type", "Send application/json in UTF-8."))


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_it_answers_415_for_a_content_encoding(post_ingest, make_subscription, encoding):
    body = ingest_body(make_subscription().id)
    answer = post_ingest(body, signed_headers(body) | {"Content-Encoding": encoding})
    detail = "Send the body without a Content-Encoding."
    assert_refused(answer, problem(415, "unsupported_media_type", detail))


@pytest.mark.parametrize("content_type", ["application/json", 'Application/JSON ; charset="UTF-8"'])
def test_it_takes_json_in_utf_8_however_it_is_named(post_ingest, make_subscription, content_type):
    body = ingest_body(make_subscription().id)
    headers = signed_headers(body) | {"Content-Type": content_type, "Content-Encoding": "identity"}
    assert post_ingest(body, headers).status == 202


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "<script>"])
def test_it_makes_a_request_id_instead_of_taking_a_harmful_one(post_ingest, given):
    answer = post_ingest(ingest_body(MISSING), {"Request-Id": given})
    made = answer.headers["Request-Id"]
    assert uuid.UUID(made).version == 4
    assert answer.json() == NOT_FOUND | {"request_id": made}


# --- Both doors ----------------------------------------------------------------------

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


def test_it_stores_nothing_for_a_subscription_that_was_deleted_since_it_was_cached(post_ingest, make_subscription):
    subscription = make_subscription()
    Subscription.objects.cached(subscription.id)
    Subscription.objects.filter(id=subscription.id).update(deleted_at=Now())
    body = ingest_body(subscription.id)
    for headers in ({}, {"Idempotency-Key": "k"}):
        assert_refused(post_ingest(body, signed_headers(body, **headers)), NOT_FOUND)


@pytest.fixture
def shared_subscription(make_subscription):
    return make_subscription(event_types=["invoice.*"])


# --- Group commit, and a database that goes away ---------------------------------------


@pytest.mark.django_db(transaction=True)
def test_it_stores_each_of_many_calls_at_once_exactly_once(post_ingest, make_subscription):
    subscription = make_subscription()
    threads = 32
    together = threading.Barrier(threads)

    def call(number: int) -> dict[str, str]:
        try:
            together.wait()
            answers = [post_ingest(ingest_body(subscription.id, body=f"[{number},{n}]")) for n in range(4)]
            return {answer.json()["request_id"]: f"[{number},{n}]" for n, answer in enumerate(answers)}
        finally:
            connections.close_all()

    with ThreadPoolExecutor(threads) as pool:
        answered = dict(chain.from_iterable(answers.items() for answers in pool.map(call, range(threads))))
    stored = {str(request.id): bytes(request.payload).decode() for request in WebhookRequest.objects.all()}
    assert stored == answered
    assert Counter(stored.values()) == Counter(f"[{number},{n}]" for number in range(threads) for n in range(4))


@pytest.mark.django_db(transaction=True)
def test_it_stores_on_a_new_connection_when_the_old_one_was_cut(post_ingest, make_subscription):
    subscription = make_subscription()
    Subscription.objects.cached(subscription.id)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [own_process] = cursor.fetchone()
    other = connections.create_connection("default")
    with contextlib.closing(other), other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [own_process])

    assert post_ingest(ingest_body(subscription.id)).status == 202
    assert WebhookRequest.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_cached", [True, False])
def test_it_answers_503_while_the_database_is_away_and_then_202(
    post_ingest, make_subscription, monkeypatch, is_cached
):
    subscription = make_subscription()
    if is_cached:
        Subscription.objects.cached(subscription.id)
    with monkeypatch.context() as away:
        connection.close()
        away.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        away.setitem(connection.settings_dict, "PORT", 1)
        answer = post_ingest(ingest_body(subscription.id))
    assert_refused(answer, UNAVAILABLE)
    assert answer.headers["Retry-After"] == "2"

    assert post_ingest(ingest_body(subscription.id)).status == 202
    assert WebhookRequest.objects.count() == 1


@pytest.mark.parametrize("member", ['"event_type": "a"', '"body": 2', '"body": "x"', '"event\\u005ftype": "a"'])
def test_it_refuses_a_member_that_is_given_twice(post_ingest, make_subscription, member):
    body = ingest_body(make_subscription().id, body='{"quoted": "\\"text\\""}')[:-1] + f", {member}}}".encode()
    answer = post_ingest(body)
    assert (answer.status, answer.json()["code"]) == (400, "duplicate_member")
    assert not WebhookRequest.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_while_the_database_is_away_those_that_wait_for_a_commit_are_told_with_it(make_subscription, monkeypatch):
    subscription = make_subscription()
    first, second = (ingestion._Row(new_id(), subscription.id, "invoice.paid", b"{}", None) for _ in range(2))
    group_commit = ingestion._GroupCommit()
    group_commit._waiting = [first]
    monkeypatch.setattr(ingestion, "GROUP_SIZE", 1)  # the second is not of the first one's group
    connection.close()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "HOST", "/nowhere")
        with pytest.raises(OperationalError):
            group_commit.store(second)
    assert isinstance(first.error, OperationalError)
    assert first.done.is_set()
    assert not WebhookRequest.objects.exists()
    group_commit.store(ingestion._Row(new_id(), subscription.id, "invoice.paid", b"{}", None))
    assert WebhookRequest.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_what_the_database_does_not_take_of_one_call_is_no_matter_of_those_that_share_its_commit(
    make_subscription,
):
    subscription = make_subscription()
    group_commit = ingestion._GroupCommit()
    refused = ingestion._Row(new_id(), subscription.id, "invoice.paid", b"{}", '"no \\u0000 in jsonb"')
    taken = ingestion._Row(new_id(), subscription.id, "invoice.paid", b"{}", None)
    group_commit._waiting = [refused]
    group_commit.store(taken)
    assert taken.is_stored
    assert isinstance(refused.error, DataError)
    assert refused.done.is_set()
    assert [row.id for row in WebhookRequest.objects.all()] == [taken.id]
