"""POST /subscriptions/{id}/test: a real call, made now, of which nothing is stored."""

import base64
import json
import threading
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from standardwebhooks.webhooks import Webhook

from deliveries import trials
from deliveries.models import DeliveryAttempt, WebhookRequest
from deliveries.outcome import HINTS, ErrorClass
from subscriptions import rate_limits
from subscriptions.models import Subscription
from tests.conftest import SECRET, signature_of
from tests.expected import REQUEST_ID, invalid, problem
from tests.receiver import Answer

pytestmark = pytest.mark.usefixtures("patient_redis")


@pytest.fixture
def test(client_with_key):
    """Test a subscription with this raw body; returns the answer."""

    def test(subscription, body=b"", content_type="application/json"):
        return client_with_key.post(
            f"/subscriptions/{subscription.id}/test",
            body,
            content_type=content_type,
            headers={"Request-Id": REQUEST_ID},
        )

    return test


def test_it_makes_a_signed_call_and_tells_what_came_of_it(test, make_subscription, receiver):
    receiver.script = [Answer(status=201, headers={"X-Answer": "yes"}, body="tää".encode())]
    answer = test(make_subscription(receiver.url))
    (arrival,) = receiver.arrivals
    found = answer.json()
    assert found == {
        "webhook_id": arrival.headers["webhook-id"],
        "event_type": "webhook.test",
        "attempted_at": found["attempted_at"],
        "success": True,
        "status_code": 201,
        "response_ms": found["response_ms"],
        "error": None,
        "hint": None,
        "dns_ms": found["dns_ms"],
        "connect_ms": found["connect_ms"],
        "tls_ms": None,
        "first_byte_ms": found["first_byte_ms"],
        "response_headers": found["response_headers"],
        "response_body": "tää",
    }
    assert answer.status_code == 200
    assert "X-Answer: yes" in found["response_headers"]
    assert found["response_ms"] >= found["first_byte_ms"] >= found["connect_ms"] >= 0
    assert abs(datetime.fromisoformat(found["attempted_at"]) - datetime.now(UTC)) < timedelta(minutes=1)

    assert arrival.body == b'{"test": true}'
    headers = {name.lower(): value for name, value in arrival.headers.items()}
    Webhook(base64.b64encode(SECRET.encode()).decode()).verify(arrival.body, headers)
    assert headers["x-webhook-signature"] == signature_of(arrival.body)
    assert (headers["x-webhook-event"], headers["x-webhook-attempt"]) == ("webhook.test", "1")


def test_it_calls_the_target_that_another_process_has_just_set(test, make_subscription, receiver):
    subscription = make_subscription("http://127.0.0.1:1/before")
    Subscription.objects.cached(subscription.id)
    Subscription.objects.filter(id=subscription.id).update(target_url=receiver.url)
    assert test(subscription).json()["status_code"] == 200


def test_it_sends_what_is_given_byte_for_byte(test, make_subscription, receiver):
    payload = '{"b": 1.50, "a" :  "\\u00e4", "a": [1e2]}'
    test(make_subscription(receiver.url), f'{{"body": {payload}, "event_type": "invoice.paid"}}'.encode())
    (arrival,) = receiver.arrivals
    assert arrival.body == payload.encode()
    assert arrival.headers["X-Webhook-Event"] == "invoice.paid"


def test_it_sends_the_headers_and_auth_of_the_subscription(test, make_subscription, receiver):
    subscription = make_subscription(receiver.url, headers={"X-Route": "a"})
    subscription.set_secret_headers({"X-Token": "t"})
    subscription.set_auth({"type": "bearer", "token": "b"})
    subscription.save()
    test(subscription)
    (arrival,) = receiver.arrivals
    sent = {name: arrival.headers[name] for name in ("X-Route", "X-Token", "Authorization")}
    assert sent == {"X-Route": "a", "X-Token": "t", "Authorization": "Bearer b"}


def test_it_stores_nothing_and_counts_for_nothing(test, make_subscription, receiver):
    receiver.otherwise = Answer(status=410)
    subscription = make_subscription(receiver.url)
    before = Subscription.objects.values().get()
    test(subscription)
    assert Subscription.objects.values().get() == before
    assert not WebhookRequest.objects.exists()
    assert not DeliveryAttempt.objects.exists()


@pytest.mark.parametrize("status", ["paused", "disabled"])
def test_it_tests_what_delivers_nothing_at_the_moment(test, make_subscription, receiver, status):
    assert test(make_subscription(receiver.url, status=status)).json()["success"] is True
    assert len(receiver.arrivals) == 1


def test_it_tells_of_a_receiver_that_fails(test, make_subscription, receiver):
    receiver.script = [Answer(status=500, body=b"no")]
    found = test(make_subscription(receiver.url)).json()
    told = {name: found[name] for name in ("success", "status_code", "error", "hint", "response_body")}
    assert told == {
        "success": False,
        "status_code": 500,
        "error": "http_5xx",
        "hint": HINTS[ErrorClass.HTTP_5XX],
        "response_body": "no",
    }


def test_it_obeys_the_address_rules(test, make_subscription, receiver, settings):
    settings.ALLOWED_NETWORKS = []
    found = test(make_subscription(receiver.url)).json()
    assert (found["error"], found["status_code"]) == ("blocked_address", None)
    assert receiver.arrivals == []


def test_it_ends_with_the_call_limit_of_the_subscription(test, make_subscription, receiver):
    hold = threading.Event()
    receiver.script = [Answer(hold=hold)]
    found = test(make_subscription(receiver.url, timeout_seconds=1)).json()
    hold.set()
    assert (found["error"], found["success"]) == ("timeout", False)
    assert found["response_ms"] >= 900


def test_it_cuts_a_long_answer(test, make_subscription, receiver):
    receiver.script = [Answer(body=b"x" * 100_000)]
    assert test(make_subscription(receiver.url)).json()["response_body"] == "x" * 65_536


def test_it_tells_of_its_own_trouble_without_details(test, make_subscription, receiver):
    subscription = make_subscription(receiver.url)
    Subscription.objects.update(secret=b"unreadable")
    found = test(subscription).json()
    assert (found["error"], found["hint"]) == ("internal", HINTS[ErrorClass.INTERNAL])
    assert receiver.arrivals == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", None),
        (b"[]", invalid(("", "invalid", "Expected `object`, got `array`"))),
        (b'{"colour": 1}', invalid(("/colour", "unknown", "This field is not known."))),
        (b'{"event_type": 5}', invalid(("/event_type", "invalid", "Expected `str`, got `int`"))),
        (
            b'{"event_type": "no good"}',
            invalid(
                (
                    "/event_type",
                    "invalid_event_type",
                    "An event type has letters, digits, _ and -, in segments joined by dots.",
                )
            ),
        ),
        (b'{"body": 1, "body": 2}', problem(400, "duplicate_member", "Give each of event_type and body once.")),
    ],
)
def test_it_refuses_any_other_body_and_calls_nobody(test, make_subscription, receiver, body, expected):
    answer = test(make_subscription(receiver.url), body)
    assert answer.status_code == 400
    assert expected is None or answer.json() == expected
    assert receiver.arrivals == []


def test_it_answers_415_for_what_is_not_json(test, make_subscription, receiver):
    assert test(make_subscription(receiver.url), b"{}", "text/plain").status_code == 415
    assert receiver.arrivals == []


def test_it_answers_404_for_what_is_not_there_or_another_tenants(make_client, make_subscription, receiver):
    client = make_client(tenant="acme")
    other = make_subscription(receiver.url, tenant="globex")
    for subscription_id in (uuid.uuid4(), other.id):
        answer = client.post(f"/subscriptions/{subscription_id}/test", headers={"Request-Id": REQUEST_ID})
        assert answer.json() == problem(404, "not_found", "There is no such subscription.")
    assert receiver.arrivals == []


@pytest.mark.parametrize("scope", ["publish", "read"])
def test_it_wants_a_key_that_may_manage(make_client, make_subscription, receiver, scope):
    answer = make_client(scope).post(f"/subscriptions/{make_subscription(receiver.url).id}/test")
    assert answer.status_code == 403
    assert receiver.arrivals == []


def test_it_tests_a_subscription_twenty_times_a_minute_at_most(test, make_subscription, receiver):
    subscription = make_subscription(receiver.url)
    for _ in range(trials.LIMIT.amount):
        rate_limits.count(f"test {subscription.id}", trials.LIMIT, whose="")
    answer = test(subscription)
    detail = "There may be no more tests of this subscription than 20 per 1 minute. Try again later."
    assert answer.json() == problem(429, "rate_limited", detail)
    assert 1 <= int(answer["Retry-After"]) <= 60
    assert receiver.arrivals == []
    assert test(make_subscription(receiver.url)).status_code == 200


@pytest.fixture
def hanging(test, receiver):
    """Test these subscriptions at once, and have their receiver answer when the block is over."""

    @contextmanager
    def hang(subscriptions):
        hold = threading.Event()
        receiver.otherwise = Answer(hold=hold)
        statuses = []

        def test_one(subscription):
            statuses.append(test(subscription).status_code)
            connection.close()

        threads = [threading.Thread(target=test_one, args=[subscription]) for subscription in subscriptions]
        for thread in threads:
            thread.start()
        try:
            receiver.wait_for(len(threads))
            receiver.otherwise = Answer()
            yield
        finally:
            hold.set()
            for thread in threads:
                thread.join()
        assert statuses == [200] * len(threads)

    return hang


TOO_MANY = problem(429, "too_many_tests", "Too many test calls are being made at this moment. Try again.")


@pytest.mark.django_db(transaction=True)
def test_it_leaves_threads_to_others_while_receivers_hang(test, make_subscription, receiver, hanging):
    subscriptions = [make_subscription(receiver.url) for _ in range(trials.MOST_AT_ONCE)]
    with hanging(subscriptions):
        answer = test(make_subscription(receiver.url))
    assert json.loads(answer.content) == TOO_MANY
    assert answer["Retry-After"] == "5"
    assert test(subscriptions[0]).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_one_tenant_makes_half_of_the_tests_at_once(test, make_subscription, receiver, hanging):
    first, second, third = (make_subscription(receiver.url, tenant="acme") for _ in range(3))
    other = make_subscription(receiver.url, tenant="other")
    with hanging([first, second]):
        assert test(third).json() == TOO_MANY
        assert test(other).status_code == 200
    assert test(third).status_code == 200
