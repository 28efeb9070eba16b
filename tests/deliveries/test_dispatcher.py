"""The loop as a whole: from a due row to a receiver and back."""

import base64
import contextlib
import json
import logging
import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from freezegun import freeze_time
from standardwebhooks.webhooks import Webhook

from deliveries import claims, sql, walks
from deliveries.models import DeliveryAttempt, WebhookRequest
from subscriptions.models import Subscription
from tests import history
from tests.conftest import SECRET, signature_of
from tests.deliveries.locks import lock_of, release_once_waited_for
from tests.receiver import Answer

pytestmark = pytest.mark.django_db


def test_it_delivers_the_payload_byte_for_byte_on_every_try(
    make_subscription, make_request, make_due, receiver, deliver
):
    payload = b'{"z":1, "a":2,"a":3, "n":1.0, "e":1e2, "big":12345678901234567890, '
    payload += '"text":"\\u00e9é💩"}'.encode()
    request = make_request(make_subscription(receiver.url), payload)
    receiver.script = [Answer(status=500)]
    assert deliver() == 1
    make_due(request)
    assert deliver() == 1
    WebhookRequest.objects.replay()
    assert deliver() == 1
    assert [arrival.body for arrival in receiver.arrivals] == [payload] * 3
    assert len({arrival.headers["webhook-id"] for arrival in receiver.arrivals}) == 1
    assert [arrival.headers["X-Webhook-Attempt"] for arrival in receiver.arrivals] == ["1", "2", "3"]


def test_it_sends_the_documented_headers(make_subscription, make_request, receiver, deliver, settings):
    request = make_request(make_subscription(receiver.url), b'{"n": 1}', event_type="invoice.paid")
    deliver()
    headers = receiver.arrivals[0].headers
    del headers["Host"], headers["webhook-timestamp"], headers["webhook-signature"]
    assert headers == {
        "User-Agent": f"webhook-delivery-service/{settings.VERSION}",
        "Accept": "*/*",
        "Content-Type": "application/json",
        "Content-Length": "8",
        "webhook-id": str(request.id),
        "X-Webhook-Signature": signature_of(b'{"n": 1}'),
        "X-Webhook-Event": "invoice.paid",
        "X-Webhook-Attempt": "1",
    }


@pytest.mark.parametrize(
    "secret", ["whsec_" + base64.b64encode(bytes(range(32))).decode(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
)
def test_a_receiver_can_verify_it_with_the_standard_webhooks_library(
    make_subscription, make_request, receiver, deliver, secret
):
    make_request(make_subscription(receiver.url, secret=secret), b'{"n": 1}')
    deliver()
    (arrival,) = receiver.arrivals
    headers = {name.lower(): value for name, value in arrival.headers.items()}
    assert Webhook(secret).verify(arrival.body, headers) == {"n": 1}


def test_a_receiver_can_verify_a_secret_that_is_plain_text(make_subscription, make_request, receiver, deliver):
    make_request(make_subscription(receiver.url), b'{"n": 1}')
    deliver()
    (arrival,) = receiver.arrivals
    headers = {name.lower(): value for name, value in arrival.headers.items()}
    assert Webhook(base64.b64encode(SECRET.encode()).decode()).verify(arrival.body, headers) == {"n": 1}


def test_it_follows_the_retry_schedule_and_then_fails(
    make_subscription, make_request, make_due, receiver, deliver
):
    receiver.otherwise = Answer(status=503, body=b"later")
    request = make_request(make_subscription(receiver.url))
    delays = []
    for _ in range(6):
        deliver()
        request.refresh_from_db()
        if request.is_pending:
            attempt = request.attempts.latest("attempt_number")
            delays.append((request.next_attempt_at - attempt.attempted_at).total_seconds())
            make_due(request)
    assert request.status == "failed"
    assert request.error == "http_5xx"
    assert len(receiver.arrivals) == 6
    for delay, minutes in zip(delays, (2, 4, 8, 16, 32), strict=True):
        assert minutes * 60 <= delay <= minutes * 60 * 1.1 + 2
    assert deliver() == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(status=410), "The receiver answered 410 Gone."),
        (
            Answer(status=500, headers={"webhook-delivery": "disable"}),
            "The receiver answered webhook-delivery: disable.",
        ),
        (
            Answer(status=500, headers={"webhook-delivery": "abort-message"}),
            "The receiver answered webhook-delivery: abort-message.",
        ),
    ],
)
def test_a_request_that_its_receiver_wants_no_more_fails_at_once_and_says_why(
    make_subscription, make_request, receiver, deliver, answer, reason
):
    receiver.otherwise = answer
    request = make_request(make_subscription(receiver.url))
    assert deliver() == 1
    request.refresh_from_db()
    assert (request.status, request.status_reason, request.attempt_count) == ("failed", reason, 1)
    WebhookRequest.objects.filter(id=request.id).replay()
    request.refresh_from_db()
    assert (request.status, request.status_reason) == ("pending", "")


def test_a_hanging_receiver_does_not_hold_up_another(make_subscription, make_request, receiver, deliver):
    hold = threading.Event()
    receiver.script = [Answer(hold=hold)]
    hanging = make_request(make_subscription(receiver.url))
    thread = threading.Thread(target=lambda: (receiver.wait_for(11), hold.set()))
    thread.start()
    subscription = make_subscription(receiver.url)
    for _ in range(10):
        make_request(subscription)
    assert deliver() == 11
    thread.join()
    hanging.refresh_from_db()
    assert hanging.status == "delivered"


def hold(count):
    """Store so many requests that wait for the circuits of their subscriptions."""
    history.subscribe(count)
    history.burst()
    Subscription.objects.update(circuit_opened_at=Now())


def test_what_is_held_does_not_hide_what_is_due_behind_it(make_subscription, make_request, receiver, deliver):
    """Also with more of it than one claim looks at."""
    hold(4 * claims.MOST_WALKS * walks.WALK_LENGTH)
    due = make_request(make_subscription(receiver.url, id=walks.LAST))
    assert deliver() == 1
    due.refresh_from_db()
    assert due.status == "delivered"


def test_a_row_that_cannot_be_sent_does_not_stop_the_others(make_subscription, make_request, receiver, deliver):
    broken = make_subscription("http://127.0.0.1:9/")
    type(broken).objects.filter(id=broken.id).update(secret=b"not what encrypt() made")
    poison = make_request(broken)
    healthy = make_request(make_subscription(receiver.url))
    assert deliver() == 1
    poison.refresh_from_db()
    healthy.refresh_from_db()
    assert healthy.status == "delivered"
    assert (poison.status, poison.error, poison.failure_count) == ("pending", "internal", 1)


def test_it_writes_one_line_per_attempt_without_secrets_or_payloads(
    make_subscription, make_request, receiver, deliver, caplog
):
    request = make_request(make_subscription(receiver.url), b'{"private": "text"}')
    with caplog.at_level(logging.INFO, logger="deliveries.attempts"):
        deliver()
    (record,) = [record for record in caplog.records if record.name == "deliveries.attempts"]
    line = json.dumps({name: str(value) for name, value in vars(record).items()})
    assert record.request_id == str(request.id)
    assert (record.attempt, record.status_code, record.error, record.retry_in_seconds) == (1, 200, None, None)
    assert SECRET not in line
    assert "private" not in line
    assert receiver.arrivals[0].headers["webhook-signature"] not in line


def test_it_makes_nothing_of_an_empty_database(deliver):
    assert deliver() == 0
    assert not DeliveryAttempt.objects.exists()


def test_a_clock_that_is_wrong_on_one_host_moves_no_due_time(make_subscription, make_request, receiver, deliver):
    subscription = make_subscription(receiver.url)
    waiting = make_request(subscription, next_attempt_at=Now() + timedelta(minutes=10))
    failing = make_request(subscription)
    receiver.script = [Answer(status=500)]
    with freeze_time(datetime.now(UTC) + timedelta(hours=1), tick=True):
        assert deliver() == 1
    waiting.refresh_from_db()
    failing.refresh_from_db()
    assert waiting.attempt_count == 0
    assert failing.next_attempt_at - failing.received_at < timedelta(minutes=3)
    assert abs(int(receiver.arrivals[0].headers["webhook-timestamp"]) - failing.received_at.timestamp()) < 600


@pytest.mark.django_db(transaction=True)
def test_a_call_that_could_outlast_its_lease_is_not_begun_but_given_back(
    make_subscription, make_request, receiver, deliver, settings, caplog
):
    """The claim waits for a lock longer than the lease's margin, as it may for a database that hangs."""
    settings.LEASE_MARGIN_SECONDS = 0.2
    request = make_request(make_subscription(receiver.url))
    releasing = threading.Thread(target=release_once_waited_for, args=(lock_of(request), 0.3))
    releasing.start()
    with caplog.at_level(logging.WARNING, logger="deliveries.dispatcher"):
        assert deliver() == 1
    releasing.join()
    assert "claimed too late to be sent" in caplog.messages
    assert list(request.attempts.values_list("attempt_number", "error")) == [(1, "")]


@pytest.mark.django_db(transaction=True)
def test_what_a_claim_took_before_the_database_hung_is_sent(make_subscription, make_request, receiver, deliver):
    """The second walk waits for a lock until it is cut off; what the first one took is not left to its lease."""
    hold(walks.WALK_LENGTH)
    ends = (uuid.UUID(int=1), walks.LAST)
    first, second = (make_request(make_subscription(receiver.url, id=end)) for end in ends)
    lock = lock_of(second)

    def release():
        with contextlib.closing(lock):
            receiver.wait_for(1)

    releasing = threading.Thread(target=release)
    releasing.start()
    assert deliver() == 2
    releasing.join()
    log = DeliveryAttempt.objects.filter(request=first).values_list("attempt_number", "error")
    assert list(log) == [(1, "")]
    second.refresh_from_db()
    assert second.status == "delivered"


@pytest.mark.django_db(transaction=True)
def test_what_was_delivered_in_an_outage_is_settled_before_anything_is_claimed(
    make_subscription, make_request, make_due, receiver, deliver
):
    """The outage begins while the receiver has the call, and outlasts the lease."""
    request = make_request(make_subscription(receiver.url))
    hold = threading.Event()
    receiver.script = [Answer(hold=hold)]
    [[own_process]] = sql.run("SELECT pg_backend_pid()", {})

    def cut_off():
        with contextlib.closing(connection):
            receiver.wait_for(1)
            assert sql.run("SELECT pg_terminate_backend(%(pid)s, 30000)", {"pid": own_process}) == [(True,)]
            make_due(request)
            hold.set()

    cutting = threading.Thread(target=cut_off)
    cutting.start()
    assert deliver() == 1
    cutting.join()
    request.refresh_from_db()
    assert (request.status, len(receiver.arrivals)) == ("delivered", 1)
