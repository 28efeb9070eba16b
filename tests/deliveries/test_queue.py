"""Wake-ups, workers and the clock, against Redis."""

import time
import zlib
from datetime import UTC, datetime

import pytest
import redis
from django.conf import settings
from django.core.management import call_command
from rq import Queue

from deliveries import queue, scheduler, tasks, worker
from deliveries.models import WebhookRequest

pytestmark = pytest.mark.usefixtures("fresh_worker", "patient_redis")

PERIODIC = {b"tick", b"purge", b"cancel-orphans", b"operations", b"warn"}


@pytest.fixture
def client():
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client


@pytest.fixture
def clock(client):
    return scheduler.Scheduler(connection=client, interval=1, queue_name=queue.DELIVERIES)


def waiting(client):
    return client.llen("rq:queue:deliveries")


def test_one_wake_up_waits_however_often_it_is_pushed(client):
    for _ in range(100):
        assert queue.push_wake_up()
    assert waiting(client) == 1


def test_taking_wake_ups_tells_whether_there_were_any():
    assert not queue.take_wake_ups()
    queue.push_wake_up()
    assert queue.take_wake_ups()
    assert not queue.take_wake_ups()


def test_jobs_are_json_and_carry_nothing(client):
    queue.push_wake_up()
    (job_id,) = client.lrange("rq:queue:deliveries", 0, -1)
    job = client.hgetall(b"rq:job:" + job_id)
    assert b"deliveries.tasks.deliver_due" in zlib.decompress(job[b"data"])
    assert client.ttl(b"rq:job:" + job_id) > 0


@pytest.mark.django_db
def test_the_same_wake_up_queued_a_hundred_times_is_one_arrival(make_subscription, make_request, receiver, client):
    make_request(make_subscription(receiver.url))
    for _ in range(100):
        Queue(queue.DELIVERIES, connection=client, serializer="json", job_class=queue.Job).enqueue(
            queue.DELIVER_DUE, result_ttl=0
        )
    call_command("rqworker", "deliveries", "--burst")
    assert len(receiver.arrivals) == 1
    assert waiting(client) == 0


@pytest.mark.django_db
def test_a_worker_delivers_what_a_wake_up_tells_it_of(make_subscription, make_request, receiver):
    request = make_request(make_subscription(receiver.url))
    queue.push_wake_up()
    call_command("rqworker", "deliveries", "--burst")
    request.refresh_from_db()
    assert request.status == "delivered"


@pytest.mark.django_db
def test_an_idle_worker_looks_for_due_requests_by_itself(make_subscription, make_request, receiver, monkeypatch):
    monkeypatch.setattr(worker, "IDLE_LOOK_SECONDS", 0)
    make_request(make_subscription(receiver.url))
    worker.look_around(queue.DELIVERIES)
    assert len(receiver.arrivals) == 1
    monkeypatch.setattr(worker, "IDLE_LOOK_SECONDS", 3600)
    make_request(make_subscription(receiver.url))
    worker.look_around(queue.DELIVERIES)
    assert len(receiver.arrivals) == 1


@pytest.mark.django_db(transaction=True)
def test_a_dispatcher_that_is_broken_is_not_worked_with_again(
    fresh_worker, make_subscription, make_request, make_due, receiver
):
    request = make_request(make_subscription(receiver.url))
    fresh_worker.dispatcher().close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        tasks.deliver_due()
    make_due(request)
    assert tasks.deliver_due() == 1
    assert len(receiver.arrivals) == 1


def test_periodic_jobs_are_registered_once_under_fixed_ids(clock, client):
    for _ in range(3):
        clock.register_periodic_jobs()
    assert set(client.zrange("rq:scheduler:scheduled_jobs", 0, -1)) == PERIODIC


def test_every_periodic_job_is_one_that_a_worker_runs(clock):
    clock.register_periodic_jobs()
    jobs = list(clock.get_jobs())
    assert len(jobs) == 5
    assert all(callable(job.func) for job in jobs)


@pytest.mark.django_db
def test_periodic_jobs_come_back_after_a_flush(clock, client):
    clock.enqueue_jobs()
    client.flushdb()
    clock.enqueue_jobs()
    assert set(client.zrange("rq:scheduler:scheduled_jobs", 0, -1)) == PERIODIC
    assert waiting(client) == 1


def test_a_periodic_job_that_a_clock_ahead_has_put_off_is_registered_anew(clock, client):
    clock.register_periodic_jobs()
    client.zadd("rq:scheduler:scheduled_jobs", dict.fromkeys(PERIODIC, time.time() + 48 * 3600))
    clock.register_periodic_jobs()
    due = dict(client.zrange("rq:scheduler:scheduled_jobs", 0, -1, withscores=True))
    assert set(due) == PERIODIC
    assert max(due.values()) <= time.time() + 24 * 3600
    assert due[b"tick"] <= time.time()


def test_the_purge_is_due_at_three_in_the_morning_utc():
    assert scheduler._next_purge(datetime(2026, 1, 1, 2, tzinfo=UTC)) == datetime(2026, 1, 1, 3, tzinfo=UTC)
    assert scheduler._next_purge(datetime(2026, 1, 1, 3, tzinfo=UTC)) == datetime(2026, 1, 2, 3, tzinfo=UTC)


@pytest.mark.django_db
def test_the_purge_job_runs_in_the_maintenance_worker(clock, make_subscription, make_request, client):
    request = make_request(make_subscription())
    WebhookRequest.objects.filter(id=request.id).update(
        status="delivered", settled_at=datetime(2020, 1, 1, tzinfo=UTC), next_attempt_at=None
    )
    clock.register_periodic_jobs()
    client.zadd("rq:scheduler:scheduled_jobs", {"purge": 0})
    clock.enqueue_jobs()
    call_command("rqworker", "maintenance", "--burst")
    assert not WebhookRequest.objects.exists()


def test_nothing_fails_while_redis_is_away(no_redis):
    assert not queue.push_wake_up()
    assert queue.take_wake_ups()
    assert not queue.take_wake_ups()


def test_every_task_that_the_queue_knows_may_be_run_but_the_clocks_own():
    named = {
        value for value in vars(queue).values() if isinstance(value, str) and value.startswith("deliveries.tasks.")
    }
    assert named == {*queue.TASKS, queue.BEAT_SCHEDULER}
