"""What the processes survive; see also tests/faults."""

import signal
import threading

import pytest

from tests.receiver import Answer

pytestmark = pytest.mark.processes


def summary(status):
    return [(a["attempt_number"], a["trigger"], a["status_code"], a["error"]) for a in status["attempts"]]


def test_a_500_and_then_a_200_are_seen_as_two_attempts(running, subscribe, ingest, wait_for_status, receiver):
    for name in ("web", "worker", "scheduler"):
        running.start(name)
    receiver.script = [Answer(status=500, body=b"not yet")]
    request_id = ingest(subscribe(receiver.url, retry_schedule=[1]))
    status = wait_for_status(request_id, "delivered")
    assert summary(status) == [(1, "initial", 500, "http_5xx"), (2, "retry", 200, None)]
    assert status["attempts"][0]["response_body"] == "not yet"
    assert [arrival.headers["webhook-id"] for arrival in receiver.arrivals] == [request_id] * 2


def test_a_delivery_arrives_though_its_worker_was_killed_in_the_middle_of_it(
    running, subscribe, ingest, wait_for_status, receiver
):
    running.start("web")
    worker = running.start("worker")
    hold = threading.Event()
    receiver.script = [Answer(hold=hold)]
    request_id = ingest(subscribe(receiver.url, timeout_seconds=2))
    receiver.wait_for(1)
    worker.kill()
    hold.set()
    running.start("worker")
    status = wait_for_status(request_id, "delivered")
    assert summary(status) == [(1, "initial", None, "worker_lost"), (2, "retry", 200, None)]
    assert [arrival.headers["webhook-id"] for arrival in receiver.arrivals] == [request_id] * 2


def test_waiting_requests_arrive_though_redis_was_flushed(
    running, subscribe, ingest, wait_for_status, receiver, redis_client
):
    for name in ("web", "scheduler"):
        running.start(name)
    subscription_id = subscribe(receiver.url)
    request_ids = [ingest(subscription_id) for _ in range(20)]
    redis_client.flushdb()
    running.start("worker")
    for request_id in request_ids:
        wait_for_status(request_id, "delivered")
    assert sorted(arrival.headers["webhook-id"] for arrival in receiver.arrivals) == sorted(request_ids)


def test_a_worker_told_to_stop_finishes_its_calls_and_takes_no_more(
    running, subscribe, ingest, wait_for_status, receiver
):
    running.start("web")
    worker = running.start("worker")
    hold = threading.Event()
    receiver.script = [Answer(hold=hold)]
    subscription_id = subscribe(receiver.url)
    first = ingest(subscription_id)
    receiver.wait_for(1)
    worker.send(signal.SIGTERM)
    second = ingest(subscription_id)
    hold.set()
    assert worker.process.wait(30) == 0
    assert wait_for_status(first, "delivered")["attempt_count"] == 1
    assert wait_for_status(second, "pending")["attempt_count"] == 0


def test_requests_arrive_without_a_scheduler(running, subscribe, ingest, wait_for_status, receiver):
    running.start("web")
    running.start("worker")
    receiver.script = [Answer(status=500)]
    request_id = ingest(subscribe(receiver.url, retry_schedule=[1]))
    assert len(wait_for_status(request_id, "delivered")["attempts"]) == 2
