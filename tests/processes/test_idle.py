"""Idle is idle: with nothing due, the processes together cost next to nothing."""

import os
import time
from pathlib import Path

import pytest
import requests

from deliveries import queue
from deliveries.scheduler import Scheduler
from tests.waiting import wait_until

pytestmark = pytest.mark.processes

OBSERVED_SECONDS = 8

# Queued at the start and then once in a while: a job of RQ's is some 50 commands.
SELDOM = ("cancel-orphans", "operations", "warn")


def cpu_seconds(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for child in children)


def test_idle_processes_cost_next_to_nothing(running, redis_client):
    for name in ("web", "worker", "maintenance", "scheduler"):
        running.start(name)
    wait_until(lambda: requests.get(f"{running.url}/ready", timeout=10), lambda answer: answer.ok, running.logs)

    def has_begun():
        """Return whether the jobs that the clock queues as it starts are done, and none but ticks are due soon."""
        due = [redis_client.zscore(Scheduler.scheduled_jobs_key, job) for job in SELDOM]
        waiting = redis_client.llen(f"rq:queue:{queue.MAINTENANCE}")
        return not waiting and all(at is not None and at > time.time() + OBSERVED_SECONDS for at in due)

    wait_until(has_begun, bool, running.logs)

    def observe():
        transactions = running.query(
            "SELECT xact_commit + xact_rollback AS n FROM pg_stat_database WHERE datname = current_database()"
        )[0]["n"]
        commands = redis_client.info("stats")["total_commands_processed"]
        return transactions, commands, sum(cpu_seconds(process.pid) for process in running.running)

    before = observe()
    time.sleep(OBSERVED_SECONDS)  # the time over which is measured; there is no event to wait for
    transactions, commands, cpu = (
        (after - earlier) / OBSERVED_SECONDS for after, earlier in zip(observe(), before, strict=True)
    )
    assert transactions <= 10
    assert commands <= 100
    # The promise is 0.02 of a core. On a host with much else to do the same work takes five times as much.
    assert cpu <= 0.15
