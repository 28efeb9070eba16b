"""Nothing is lost and nothing sent twice, however many wake-ups and clocks there are."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from tests.faults.receiver import Answer
from tests.faults.scenario import scenario
from tests.faults.site import LOOK_SECONDS, Site

pytestmark = pytest.mark.processes

WAKE_UPS = 100
DELIVER_DUE = "deliveries.tasks.deliver_due"


def test_a_hundred_wake_ups_and_four_workers_make_one_arrival(site: Site, size: int, seed: int):
    """The same wake-up is queued 100 times, with 4 workers: one arrival."""
    with scenario(site, "a hundred wake-ups, four workers", seed, workers=4) as running:
        subscription_id = running.subscribe()
        for _ in range(size):
            with site.redis.client() as client:
                queue = Queue("deliveries", connection=client, serializer=JSONSerializer)
                [request_id] = running.accept(subscription_id)
                for _ in range(WAKE_UPS):
                    queue.enqueue_call(DELIVER_DUE, timeout=60, result_ttl=0)
                running.wait(lambda queue=queue: queue.count == 0)
            running.wait_until_settled()
            assert running.attempts(request_id) == [(1, "")]
        assert len(site.receiver.arrivals) == size


def test_retries_still_come_while_the_scheduler_is_dead(site: Site, size: int, seed: int):
    """The scheduler is dead: retries still come, little later."""
    with scenario(
        site, "scheduler dead", seed, workers=1, schedulers=0, recovery_seconds=LOOK_SECONDS + 1.1
    ) as running:
        subscription_id = running.subscribe(retry_schedule=[1])
        for _ in range(size):
            site.receiver.script = [Answer(status=500)]
            [request_id] = running.accept(subscription_id)
            running.heal()
            running.wait_until_settled()
            assert running.attempts(request_id) == [(1, "http_5xx"), (2, "")]


def test_nothing_is_sent_twice_by_three_schedulers_without_a_lock(site: Site, size: int, seed: int):
    """Three schedulers run: retries still come; nothing is sent twice."""
    with scenario(site, "three schedulers, lock deleted", seed, workers=3, schedulers=3) as running:
        # One in four fails at first: fewer than open a circuit.
        numbers = itertools.count()
        site.receiver.otherwise = lambda arrival: Answer(
            status=500 if arrival.attempt_number == 1 and next(numbers) % 4 == 0 else 200
        )
        subscription_id = running.subscribe(retry_schedule=[1])
        with _lock_deleted_in_a_loop(site), running.load(subscription_id, per_second=20):
            running.wait_for_accepted(40 * size)
        running.wait_until_settled()
        retries = sum(arrival.attempt_number == 2 for arrival in site.receiver.arrivals)
        assert 0 < retries == len(site.receiver.arrivals) - len(running.ingested)


@contextmanager
def _lock_deleted_in_a_loop(site: Site) -> Iterator[None]:
    stopping = threading.Event()

    def delete() -> None:
        with site.redis.client() as client:
            while not stopping.wait(0.005):
                client.delete("rq:scheduler_lock")

    thread = threading.Thread(target=delete, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
