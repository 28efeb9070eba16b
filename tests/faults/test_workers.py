"""Nothing accepted is lost when workers are killed, frozen, poisoned or restarted."""

import signal

import pytest

from tests.faults.receiver import Answer
from tests.faults.scenario import Scenario, scenario
from tests.faults.site import LEASE_SECONDS, TICK_SECONDS, Site

pytestmark = pytest.mark.processes

LOST_THEN_DELIVERED = [(1, "worker_lost"), (2, "")]


def test_every_accepted_request_arrives_though_a_worker_is_killed_after_claiming(site: Site, size: int, seed: int):
    """A worker is killed (SIGKILL, its whole process group) before sending: every accepted request arrives."""
    with scenario(site, "worker killed after claiming", seed) as running:
        _kill_at(running, "after_claim", size)
        assert running.extra_bound == 0
        assert all(crash.in_flight == 0 for crash in running.crashes())


def test_every_accepted_request_arrives_though_a_worker_is_killed_before_sending(site: Site, size: int, seed: int):
    """A worker is killed (SIGKILL, its whole process group) before sending: the lost attempt is in the log."""
    with scenario(site, "worker killed before sending", seed) as running:
        _kill_at(running, "before_send", size, passes=2)


def test_every_accepted_request_arrives_though_a_worker_is_killed_while_sending(site: Site, size: int, seed: int):
    """A worker is killed while sending: recovery within lease + tick; same webhook-id; extra arrivals ≤ kills."""
    with scenario(site, "worker killed while sending", seed, workers=1) as running:
        subscription_id = running.subscribe()
        for _ in range(size):
            site.receiver.script = [Answer(gate=site.receiver.gate())]
            [request_id] = running.accept(subscription_id)
            site.receiver.wait_for(request_id)
            [worker] = site.processes.running("worker")
            worker.send(signal.SIGKILL)
            running.heal()
            running.allow_extra(1)
            running.wait_until_settled()
            assert running.attempts(request_id) == LOST_THEN_DELIVERED


def test_every_accepted_request_arrives_though_a_worker_is_killed_between_answer_and_settling(
    site: Site, size: int, seed: int
):
    """A worker is killed between the answer and the settling: the attempt is in the log as worker_lost."""
    with scenario(site, "worker killed before settling", seed) as running:
        _kill_at(running, "before_settle", size)


def test_nothing_is_sent_again_when_a_worker_is_killed_after_settling(site: Site, size: int, seed: int):
    """A worker is killed: extra arrivals ≤ kills. Here none, for what is settled is settled."""
    with scenario(site, "worker killed after settling", seed) as running:
        subscription_id = running.subscribe()
        for number in range(1, size + 1):
            site.crash_points.arm("after_settle")
            [request_id] = running.accept(subscription_id)
            running.wait_for_crashes(number)
            running.wait_until_settled()
            assert running.attempts(request_id) == [(1, "")]


def test_the_late_word_of_a_frozen_worker_does_not_overturn_the_newer_one(site: Site, size: int, seed: int):
    """A worker is frozen past its lease and thawed: its late word does not overturn the newer one."""
    with scenario(site, "worker frozen past its lease", seed) as running:
        subscription_id = running.subscribe(retry_schedule=[])
        for number in range(1, size + 1):
            site.receiver.script = [Answer(status=500), Answer(status=200)]
            site.crash_points.arm("before_settle", number=signal.SIGSTOP)
            [request_id] = running.accept(subscription_id)
            frozen = running.wait_for_crashes(number)[-1]
            running.wait_until_settled()
            assert running.attempts(request_id) == LOST_THEN_DELIVERED
            [worker] = [one for one in site.processes.running("worker") if one.pid == frozen.pid]
            worker.send(signal.SIGCONT)
            running.wait(lambda one=request_id: running.attempts(one) == [(1, "http_5xx"), (2, "")])
            [row] = running.requests(f"r.id = '{request_id}'")
            assert (row["status"], row["attempt_count"]) == ("delivered", 2)


def test_a_request_that_kills_its_workers_fails_after_three_and_the_others_flow(site: Site, size: int, seed: int):
    """A request kills each worker that takes it: after 3 losses it is failed, and the others flow."""
    patience = 4 * (LEASE_SECONDS + TICK_SECONDS)
    with scenario(site, "request that kills its workers", seed, workers=0, recovery_seconds=patience) as running:
        poisoned, healthy = running.subscribe(), running.subscribe()
        site.crash_points.arm("before_send", marker="poison", once=False)
        for _ in range(size):
            running.accept(poisoned, running.random.randrange(5))
            [poison] = running.accept(poisoned, marker="poison")
            running.accept(poisoned, 5)
            running.accept(healthy, 5)
            site.processes.want(web=1, worker=2, scheduler=1)
            running.wait_until_settled(patience * 2)
            assert running.attempts(poison) == [(1, "worker_lost"), (2, "worker_lost"), (3, "worker_lost")]
        failed = [str(row["id"]) for row in running.requests("r.status = 'failed'")]
        assert len(running.crashes()) == 3 * size
        assert len(failed) == size, f"{len(failed)} requests failed, and only {size} kill workers"


def test_a_rolling_restart_under_load_loses_no_attempt_and_sends_nothing_twice(site: Site, size: int, seed: int):
    """Rolling restart under load (SIGTERM): no lost attempt, no extra arrival."""
    with scenario(site, "rolling restart of three workers", seed, workers=3) as running:
        site.receiver.otherwise = lambda arrival: Answer(delay_seconds=0.05)
        subscription_ids = [running.subscribe() for _ in range(3)]
        with running.load(*subscription_ids):
            for _ in range(size):
                for worker in site.processes.running("worker"):
                    running.wait_for_accepted(5)
                    worker.send(signal.SIGTERM)
                    assert worker.wait() == 0
                    running.heal()
            running.wait_for_accepted(5)
        running.wait_until_settled()
        assert not running.site.postgresql.query("SELECT 1 FROM delivery_attempts WHERE error = 'worker_lost'")


def _kill_at(running: Scenario, point: str, times: int, *, passes: int = 0) -> None:
    """Have a worker killed at `point`, with a few requests at hand, so many times."""
    subscription_id = running.subscribe()
    for number in range(1, times + 1):
        running.site.crash_points.arm(point, passes=running.random.randint(0, passes))
        running.accept(subscription_id, running.random.randint(passes + 1, passes + 4))
        running.wait_for_crashes(number)
        running.wait_until_settled()
    assert running.site.postgresql.query("SELECT 1 FROM delivery_attempts WHERE error = 'worker_lost'")
