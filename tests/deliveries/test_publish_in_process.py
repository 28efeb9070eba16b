"""deliveries.publish: events from Python, in the caller's transaction."""

import functools
import threading
import uuid
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import connection, transaction

import deliveries
from deliveries.models import Event, WebhookRequest
from deliveries.publishing import MadeRequest, Published
from subscriptions.catalog import EventType


@pytest.mark.django_db(transaction=True)
def test_a_commit_sends_once(make_subscription, receiver, deliver):
    subscription = make_subscription(receiver.url)
    with transaction.atomic():
        published = deliveries.publish("invoice.paid", {"total": 5})
    deliver()
    [arrival] = receiver.arrivals
    [row] = WebhookRequest.objects.all()
    made = MadeRequest(subscription_id=subscription.id, request_id=row.id, status="pending")
    assert published == Published(event_id=Event.objects.get().id, requests=[made])
    assert arrival.body == b'{"total":5}'
    assert arrival.headers["webhook-id"] == str(row.id)


@pytest.mark.django_db(transaction=True)
def test_a_rollback_sends_nothing(make_subscription, receiver, deliver):
    make_subscription(receiver.url)
    with transaction.atomic():
        deliveries.publish("invoice.paid", {"total": 5})
        transaction.set_rollback(True)
    assert deliver() == 0
    assert not Event.objects.exists()
    assert not WebhookRequest.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_without_a_transaction_it_has_one_of_its_own(make_subscription, receiver, deliver):
    make_subscription(receiver.url)
    deliveries.publish("invoice.paid", None)
    assert deliver() == 1


@pytest.mark.django_db
def test_the_workers_are_woken_after_the_commit_and_not_before(
    make_subscription, django_capture_on_commit_callbacks
):
    make_subscription()
    with django_capture_on_commit_callbacks() as callbacks:
        deliveries.publish("a", 1, idempotency_key="k")
        deliveries.publish("a", 1, idempotency_key="k")
    assert [callback.__name__ for callback in callbacks] == ["wake_up"]


@pytest.mark.django_db
def test_it_reaches_the_tenant_it_is_for(make_subscription):
    subscriptions = {tenant: make_subscription(tenant=tenant) for tenant in ("", "acme")}
    for tenant, subscription in subscriptions.items():
        given = {"tenant": tenant} if tenant else {}
        [made] = deliveries.publish("a", 1, **given).requests
        assert made.subscription_id == subscription.id


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b' {"n" : 1.0,"n":2}\n', b' {"n" : 1.0,"n":2}\n'),
        ({"text": "é", "list": (1, None, True)}, '{"text":"é","list":[1,null,true]}'.encode()),
        ("text", b'"text"'),
        (
            {
                "id": uuid.UUID(int=1),
                "at": datetime(2026, 11, 24, 12, tzinfo=UTC),
                "total": Decimal("19.90"),
            },
            b'{"id":"00000000-0000-0000-0000-000000000001","at":"2026-11-24T12:00:00Z","total":"19.90"}',
        ),
    ],
)
def test_it_takes_bytes_as_they_are_and_whatever_django_writes_as_json(body, payload):
    deliveries.publish("a", body)
    assert Event.objects.get().body == payload


DEEP: list[object] = functools.reduce(lambda inner, _: [inner], range(5000), [])


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("a b", 1, {}), ValueError, "event_type: An event type has letters"),
        (("a", 1, {"tenant": "x" * 256}), ValueError, "tenant: A tenant has at most 255 characters"),
        (("a", b"{", {}), ValueError, "The body is not valid JSON"),
        (("a", b'"\xff"', {}), ValueError, "The body is not valid JSON"),
        (("a", b"1 2", {}), ValueError, "The body is not valid JSON"),
        (("a", {"n": float("nan")}, {}), ValueError, "Out of range float values"),
        (("a", "\ud800", {}), ValueError, "surrogates not allowed"),
        (("a", DEEP, {}), ValueError, "nested too deeply"),
        (("a", b"[" * 5000 + b"]" * 5000, {}), ValueError, "nested too deeply"),
        (("a", object(), {}), TypeError, "not JSON serializable"),
        (("a", 1, {"idempotency_key": ""}), ValueError, "An Idempotency-Key has 1 to 255 characters"),
        (("checked", {"n": "1"}, {}), ValueError, 'body/n: "1" is not of type "integer"'),
    ],
)
def test_it_raises_for_what_cannot_be_published(arguments, error, words):
    EventType.objects.create(
        name="checked", schema={"properties": {"n": {"type": "integer"}}}, validation="enforce"
    )
    event_type, body, more = arguments
    with pytest.raises(error, match=words):
        deliveries.publish(event_type, body, **more)
    assert not Event.objects.exists()
    assert connection.is_usable()  # and the caller's transaction goes on


@pytest.mark.django_db
def test_what_a_schema_finds_is_kept_with_the_event():
    EventType.objects.create(name="a", schema={"type": "object"}, validation="warn")
    deliveries.publish("a", 1)
    assert Event.objects.get().findings == [{"pointer": "", "code": "type", "detail": '1 is not of type "object"'}]


@pytest.mark.django_db
def test_an_equal_call_stores_nothing_and_returns_what_the_first_did(make_subscription):
    make_subscription()
    first = deliveries.publish("a", 1, tenant="", idempotency_key="k")
    make_subscription()
    assert deliveries.publish("a", 1, idempotency_key="k") == first
    assert deliveries.publish("a", 1, tenant="acme", idempotency_key="k") != first
    for other in (("b", 1), ("a", 2)):
        with pytest.raises(ValueError, match="was used with another body"):
            deliveries.publish(*other, idempotency_key="k")
    assert Event.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_an_equal_call_that_waited_for_a_rollback_publishes():
    has_published, may_roll_back = threading.Event(), threading.Event()

    def first():
        with transaction.atomic():
            deliveries.publish("a", 1, idempotency_key="k")
            has_published.set()
            may_roll_back.wait(60)
            transaction.set_rollback(True)
        connection.close()

    def second():
        found.append(deliveries.publish("a", 1, idempotency_key="k"))
        connection.close()

    found = []
    threads = [threading.Thread(target=call) for call in (first, second)]
    threads[0].start()
    assert has_published.wait(60)
    threads[1].start()
    may_roll_back.set()
    for thread in threads:
        thread.join()
    assert [published.event_id for published in found] == [Event.objects.get().id]
