"""Operations as they run: what they bring back, at what pace, beside fresh events, and until the end."""

import math
import signal
from collections import Counter
from datetime import timedelta

import psycopg
import pytest
import redis
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.models.functions import Now
from rq import Queue
from rq.serializers import JSONSerializer

from deliveries import bulk_runs, queue, tasks, worker
from deliveries.models import Operation, WebhookRequest
from tests.deliveries.database_clock import DatabaseClock
from tests.threads import at_once

pytestmark = pytest.mark.django_db


@pytest.fixture
def start(settings):
    """Store an operation that brings back a subscription's failed requests."""
    settings.OPERATION_RATE = 100_000

    def start(subscription=None, **selection) -> Operation:
        if subscription is not None:
            selection["subscription"] = str(subscription.id)
        return bulk_runs.start("replay", selection, tenant=None, requested_by="the tests")

    return start


@pytest.fixture
def make_failed(make_request, settle):
    """Store failed requests, oldest first, settled before any operation that is started from now on."""

    def make(subscription, count=1, status="failed", **fields) -> list[WebhookRequest]:
        at = Now() - timedelta(minutes=1)
        return [settle(make_request(subscription), status, settled_at=at, **fields) for _ in range(count)]

    return make


def step() -> float | None:
    """Do the next batch, as if its time had come."""
    Operation.objects.active().update(next_batch_at=Now())
    return bulk_runs.step()


def finish() -> None:
    """Do all batches, with everything that was brought back delivered between two of them."""
    for _ in range(200):
        if step() is None:
            return
        due = WebhookRequest.objects.filter(status="pending")
        due.update(status="delivered", settled_at=Now(), next_attempt_at=None)
    raise AssertionError("it does not end")


def state(operation) -> tuple:
    operation.refresh_from_db()
    return operation.status, operation.total, operation.done


def replaying() -> set[WebhookRequest]:
    return set(WebhookRequest.objects.filter(status="pending", trigger="replay"))


def test_it_brings_back_what_is_selected_and_nothing_else(start, make_subscription, make_failed):
    subscription = make_subscription()
    wanted = make_failed(subscription, 3)
    skipped = make_failed(subscription, 1, "skipped", status_reason="Its subscription was disabled.")
    make_failed(subscription, 1, "delivered")
    make_failed(subscription, 1, "canceled")
    make_failed(make_subscription(), 1)
    operation = start(subscription)
    assert state(operation) == ("pending", None, 0)
    step()
    assert state(operation) == ("running", 4, 0)
    step()
    assert replaying() == {*wanted, *skipped}
    finish()
    assert state(operation) == ("done", 4, 4)
    assert operation.started_at <= operation.finished_at
    assert {request.status_reason for request in WebhookRequest.objects.filter(trigger="replay")} == {""}


def test_it_delivers_what_it_brings_back(start, make_subscription, make_failed, receiver, deliver):
    make_failed(make_subscription(receiver.url), 3)
    start(event_type="invoice.paid")
    while step() is not None:
        deliver()
    assert len(receiver.arrivals) == 3
    assert set(WebhookRequest.objects.values_list("status", flat=True)) == {"delivered"}


def test_it_brings_back_each_request_once_though_it_fails_again(start, make_subscription, make_failed, settle):
    [request] = make_failed(make_subscription())
    operation = start(event_type="invoice.paid")
    step()
    step()
    settle(request, "failed")
    finish()
    assert state(operation) == ("done", 1, 1)
    request.refresh_from_db()
    assert request.status == "failed"


def test_it_gives_up_on_a_count_that_takes_too_long(start, monkeypatch):
    operation = start(event_type="invoice.paid")
    monkeypatch.setattr(bulk_runs, "COUNT_TIMEOUT_MS", 50)
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
        other.execute("LOCK TABLE webhook_requests IN ACCESS EXCLUSIVE MODE")
        step()
        other.rollback()
    assert state(operation) == ("failed", None, 0)
    assert operation.status_reason == "Counting the requests took too long. Narrow the filters."
    assert step() is None


def test_it_leaves_out_what_settles_after_it_was_asked_for(start, make_subscription, make_request, settle):
    request = make_request(make_subscription())
    operation = start(event_type="invoice.paid")
    settle(request, "failed", settled_at=Now() + timedelta(seconds=1))
    finish()
    assert state(operation) == ("done", 0, 0)


def test_it_brings_back_no_more_than_the_rate_allows(start, make_subscription, make_failed, settings):
    make_failed(make_subscription(max_in_flight=1000), 30)
    operation = start(event_type="invoice.paid")
    settings.OPERATION_RATE = 40
    step()
    step()
    assert len(replaying()) == 10  # a quarter of a second's share
    assert bulk_runs.step() == bulk_runs.INTERVAL_SECONDS
    assert len(replaying()) == 10
    operation.refresh_from_db()
    with connection.cursor() as cursor:
        cursor.execute("SELECT next_batch_at - now() FROM operations")
        assert cursor.fetchone()[0] >= timedelta(seconds=0.2)


def test_two_operations_share_the_rate(start, make_subscription, make_failed, settings):
    for subscription in (make_subscription(max_in_flight=1000), make_subscription(max_in_flight=1000)):
        make_failed(subscription, 30)
        start(subscription)
    settings.OPERATION_RATE = 40
    step(), step(), step(), step()
    assert len(replaying()) == 10


def test_an_operation_that_waits_leaves_the_rate_to_the_others(start, make_subscription, make_failed, settings):
    paused, other = make_subscription(max_in_flight=1, status="paused"), make_subscription(max_in_flight=1000)
    make_failed(paused, 3)
    make_failed(other, 30)
    DatabaseClock()  # its wait is not to be over because the machine is slow
    start(paused)
    step(), step(), step()
    assert len(replaying()) == 1
    start(other)
    settings.OPERATION_RATE = 40
    bulk_runs.step(), bulk_runs.step()
    assert len(replaying()) == 11


def test_a_fresh_event_waits_for_one_round_of_calls_at_most(
    start, make_subscription, make_failed, make_request, receiver, deliver
):
    subscription = make_subscription(receiver.url, max_in_flight=2)
    old = make_failed(subscription, 10)
    start(subscription)
    step()
    for _ in range(5):
        step()  # as often as the pace allows, while nothing is delivered
    assert len(replaying()) == 2
    fresh = make_request(subscription)
    for _ in range(5):
        step()
    deliver()
    order = [arrival.headers["webhook-id"] for arrival in receiver.arrivals]
    assert sorted(order) == sorted(str(request.id) for request in (*old[:2], fresh))
    while step() is not None:
        deliver()
    assert len(receiver.arrivals) == 11


@pytest.mark.parametrize("held", [{"status": "paused"}, {"circuit_opened_at": Now()}])
def test_it_waits_for_a_subscription_that_is_held_and_goes_on_with_others(
    start, make_subscription, make_failed, held
):
    waiting, other = make_subscription(max_in_flight=2, **held), make_subscription()
    make_failed(waiting, 5)
    make_failed(other, 5)
    operation = start(event_type="invoice.paid")
    for _ in range(5):
        step()
    brought_back = Counter(request.subscription_id for request in replaying())
    assert brought_back == {waiting.id: 2, other.id: 5}
    assert state(operation) == ("running", 10, 7)


def test_it_leaves_out_a_subscription_that_is_disabled_meanwhile(start, make_subscription, make_failed):
    subscription = make_subscription(max_in_flight=2)
    make_failed(subscription, 5)
    operation = start(subscription)
    step()
    step()
    type(subscription).objects.filter(id=subscription.id).disable()
    finish()
    assert state(operation) == ("done", 5, 2)


def test_it_keeps_to_the_order_of_receipt(start, make_subscription, make_failed, receiver, deliver):
    subscription = make_subscription(receiver.url, ordered=True, max_in_flight=2)
    requests = make_failed(subscription, 6)
    start(subscription)
    while step() is not None:
        deliver()
    assert [arrival.headers["webhook-id"] for arrival in receiver.arrivals] == [str(r.id) for r in requests]


def test_it_stops_when_it_is_canceled(start, make_subscription, make_failed):
    make_failed(make_subscription(max_in_flight=2), 5)
    operation = start(event_type="invoice.paid")
    step()
    step()
    assert Operation.objects.cancel() == 1
    assert step() is None
    assert state(operation) == ("canceled", 5, 2)
    assert len(replaying()) == 2


def test_it_fails_alone(start, make_subscription, make_failed, caplog):
    broken = start(subscription=None, error="dns")
    Operation.objects.filter(id=broken.id).update(selection={"subscription": "no id"})
    make_failed(make_subscription())
    operation = start(event_type="invoice.paid")
    finish()
    assert state(broken) == ("failed", None, 0)
    assert broken.status_reason == "The service made a mistake. It has been logged."
    assert state(operation) == ("done", 1, 1)
    assert "an operation failed" in caplog.messages


def run_in_a_worker(monkeypatch, timeout: int) -> str | None:
    """Have an RQ worker run the task for `timeout` seconds at most; return what became of its job."""
    monkeypatch.setattr(worker, "IDLE_LOOK_SECONDS", math.inf)  # by itself it is not to look
    monkeypatch.setattr(queue, "JOB_TIMEOUT_SECONDS", timeout)
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        jobs = Queue(queue.MAINTENANCE, connection=client, serializer=JSONSerializer, job_class=queue.Job)
        job = jobs.enqueue_call(queue.RUN_OPERATIONS, timeout=timeout, result_ttl=60, failure_ttl=60)
        call_command("rqworker", queue.MAINTENANCE, "--burst")
        return job.get_status()


def test_it_goes_on_after_the_time_limit_of_its_task_struck(start, make_subscription, make_failed, monkeypatch):
    """RQ ends a task that takes too long, wherever it is: that is no fault of the operation."""
    make_failed(make_subscription(), 3)
    operation = start(event_type="invoice.paid")

    def strike(execute, statement, *rest):
        if "COUNT(" in statement:
            signal.raise_signal(signal.SIGALRM)
        return execute(statement, *rest)

    with connection.execute_wrapper(strike):
        assert run_in_a_worker(monkeypatch, timeout=60) == "failed"
    assert state(operation) == ("pending", None, 0)
    assert run_in_a_worker(monkeypatch, timeout=60) == "finished"
    assert state(operation) == ("done", 3, 3)


@pytest.mark.django_db(transaction=True)
def test_it_goes_on_after_the_time_limit_struck_while_it_waited_for_the_database(
    make_subscription, make_failed, monkeypatch
):
    make_failed(make_subscription(), 3)
    operation = Operation.objects.create(kind="replay", selection={"event_type": "invoice.paid"})
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
        other.execute("LOCK TABLE webhook_requests IN ACCESS EXCLUSIVE MODE")
        assert run_in_a_worker(monkeypatch, timeout=1) == "failed"
        other.rollback()
    assert state(operation) == ("pending", None, 0)
    assert run_in_a_worker(monkeypatch, timeout=60) == "finished"
    assert state(operation) == ("done", 3, 3)


@pytest.mark.django_db(transaction=True)
def test_it_leaves_an_operation_to_who_is_at_it(start, make_subscription, make_failed):
    make_failed(make_subscription())
    operation = start(event_type="invoice.paid")
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": None}) as other:
        other.execute("SELECT 1 FROM operations FOR UPDATE")
        assert bulk_runs.step() == bulk_runs.INTERVAL_SECONDS
        other.rollback()
    assert state(operation) == ("pending", None, 0)
    assert bulk_runs.step() == 0.0


@pytest.mark.django_db(transaction=True)
def test_two_runners_at_once_bring_back_each_request_once(start, make_subscription, make_failed):
    subscriptions = [make_subscription(max_in_flight=1000) for _ in range(3)]
    for subscription in subscriptions:
        make_failed(subscription, 20)
    operation = start(event_type="invoice.paid")
    at_once(2, tasks.run_operations)
    assert state(operation) == ("done", 60, 60)
    assert len(replaying()) == 60


def test_the_task_runs_what_there_is_and_ends(start, make_subscription, make_failed):
    make_failed(make_subscription(), 3)
    operation = start(event_type="invoice.paid")
    tasks.run_operations()
    assert state(operation) == ("done", 3, 3)


def test_the_task_makes_room_for_others_and_comes_back(start, make_subscription, make_failed, monkeypatch):
    monkeypatch.setattr(tasks, "OPERATIONS_SECONDS", 0.0)
    make_failed(make_subscription(), 3)
    operation = start(event_type="invoice.paid")
    tasks.run_operations()
    assert state(operation) == ("running", 3, 0)
    assert queue.is_redis_there()
    with queue.redis_connection() as client:
        assert client.llen("rq:queue:maintenance") == 1


def test_an_operation_wakes_the_maintenance_worker(start, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks() as callbacks:
        start(tenant="acme")
    assert callbacks == [queue.wake_maintenance]
