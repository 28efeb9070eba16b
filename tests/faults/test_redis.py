"""Nothing accepted is lost with Redis, which holds only nudges."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.faults.proxy import Mode
from tests.faults.scenario import Scenario, scenario
from tests.faults.site import LOOK_SECONDS, SLACK_SECONDS, Site

pytestmark = pytest.mark.processes

ANSWER_SECONDS = 1.0
PERIODIC_JOBS = {b"tick", b"purge", b"cancel-orphans", b"operations"}
ACCEPTED_MEANWHILE = 60

# Until it is clear that Redis hangs, a pause, and a look; see deliveries/worker.py.
HANGING_SECONDS = 3 + 1 + LOOK_SECONDS


def test_ingest_answers_and_everything_arrives_though_redis_is_flushed(site: Site, size: int, seed: int):
    """Redis is flushed: everything is delivered afterwards, by itself; the periodic jobs come back."""

    def flush(running: Scenario) -> None:
        for _ in range(5):
            site.redis.flush()
            running.wait_for_accepted(ACCEPTED_MEANWHILE // 5)

    with _under_load(site, "Redis flushed", seed) as running:
        _repeat(running, size, flush)


def test_ingest_answers_and_everything_arrives_though_redis_is_restarted_empty(site: Site, size: int, seed: int):
    """Redis is restarted empty: ingest answers 202 within a second all the while."""

    def restart(running: Scenario) -> None:
        site.redis.restart_empty()
        running.wait_for_accepted(ACCEPTED_MEANWHILE)

    with _under_load(site, "Redis killed and restarted empty", seed) as running:
        _repeat(running, size, restart)


def test_ingest_answers_and_everything_arrives_though_redis_is_full(site: Site, size: int, seed: int):
    """Redis is full (noeviction): ingest answers 202 within a second all the while."""

    def fill(running: Scenario) -> None:
        site.redis.limit_memory(1)
        running.wait_for_accepted(ACCEPTED_MEANWHILE)
        site.redis.limit_memory(0)

    with _under_load(site, "Redis full", seed) as running:
        _repeat(running, size, fill)


def test_ingest_answers_and_everything_arrives_though_redis_is_stopped(site: Site, size: int, seed: int):
    """Redis is stopped (SIGSTOP): ingest answers 202 within a second all the while."""

    def stop(running: Scenario) -> None:
        site.redis.freeze()
        try:
            running.wait_for_accepted(ACCEPTED_MEANWHILE)
        finally:
            site.redis.thaw()

    with _under_load(site, "Redis stopped", seed) as running:
        _repeat(running, size, stop)


def test_ingest_answers_and_everything_arrives_though_redis_is_away(site: Site, size: int, seed: int):
    """Redis is away: ingest answers 202 within a second all the while."""

    def refuse(running: Scenario) -> None:
        site.redis_proxy.set(Mode.REFUSE)
        running.wait_for_accepted(ACCEPTED_MEANWHILE)
        site.redis_proxy.heal()

    with _under_load(site, "Redis away", seed) as running:
        _repeat(running, size, refuse)


def test_workers_look_for_themselves_while_redis_hangs(site: Site, size: int, seed: int):
    """Redis is stopped (SIGSTOP): what is accepted meanwhile arrives within seconds, not when it is back."""
    with scenario(site, "Redis hanging for long", seed, workers=1, recovery_seconds=HANGING_SECONDS) as running:
        subscription_id = running.subscribe()
        running.accept(subscription_id)
        running.wait_until_settled()
        site.redis.freeze()
        try:
            running.wait(lambda: "the worker lost Redis" in site.processes.logs())
            for _ in range(2 * size):
                running.accept(subscription_id)
                running.heal()  # the time runs from here
                running.wait_until_settled(HANGING_SECONDS + SLACK_SECONDS)
        finally:
            site.redis.thaw()
        assert not site.processes.ended_by_themselves


@contextlib.contextmanager
def _under_load(site: Site, name: str, seed: int) -> Iterator[Scenario]:
    with scenario(site, name, seed, recovery_seconds=LOOK_SECONDS) as running:
        with running.load(running.subscribe()):
            running.wait_for_accepted(3)
            yield running
        running.wait_until_settled()
        assert {call.status for call in running.ingested} == {202}
        slowest = max(call.seconds for call in running.ingested)
        assert slowest < ANSWER_SECONDS
        assert not site.processes.ended_by_themselves


def _repeat(running: Scenario, times: int, fault: Callable[[Scenario], None]) -> None:
    for _ in range(times):
        fault(running)
        running.heal()
        running.wait_for_accepted(3)
        running.wait(lambda: _has_periodic_jobs(running.site))


def _has_periodic_jobs(site: Site) -> bool:
    with site.redis.client() as client:
        return set(client.zrange("rq:scheduler:scheduled_jobs", 0, -1)) >= PERIODIC_JOBS
