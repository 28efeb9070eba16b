"""Sustained load with one random fault after the other, and the oracle at the end."""

import contextlib
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.receiver import Answer, Arrival
from tests.faults.scenario import Figures, Scenario
from tests.faults.site import Site

WORKERS = 3
SUBSCRIPTIONS = 10
PER_SECOND = 60
FEWEST_SECONDS, MOST_SECONDS = 5.0, 10.0
SILENT_SECONDS = 2.0
LOCKED_SECONDS = 4

# The receiver takes its time, so that calls are in flight whenever something dies, and
# refuses every so manieth of a subscription. Chance would now and then refuse half of ten,
# which opens a circuit, and a recovery would be measured that is none: it holds for 30 s.
LONGEST_ANSWER_SECONDS = 0.3
REFUSED_EVERY = 10

# A machine that is too busy opens circuits all the same. Of what these hold at the end the
# first probe is awaited, and a second one.
LAST_WAIT_SECONDS = 120

OPEN_CIRCUITS = "SELECT id, circuit_opened_at FROM subscriptions WHERE circuit_opened_at IS NOT NULL"


@dataclass(frozen=True, kw_only=True)
class Soaked:
    """What a soak came to; `refused` ingest calls got 503, `unanswered` ones nothing.

    Deliveries that were `late` took longer than their limit, though the receiver is quicker.
    """

    figures: Figures
    faults: Counter[str]
    refused: int
    unanswered: int
    late: int
    circuits_opened: int
    ended_by_themselves: list[str]


def soak(site: Site, *, seconds: float, seed: int, say: Callable[[str], None]) -> Soaked:
    """Load the service for `seconds` while it is hurt every few seconds; the seed decides how and when."""
    site.reset(web=1, worker=WORKERS, scheduler=1, maintenance=1)
    running = Scenario(site, "soak", seed)
    faults: Counter[str] = Counter()
    circuits: set[tuple[object, object]] = set()
    subscription_ids = [
        running.subscribe(retry_schedule=[1] * 8, target_url=f"{site.receiver.url}/{number}")
        for number in range(SUBSCRIPTIONS)
    ]
    site.receiver.otherwise = _slow_and_moody(random.Random(seed))
    left = seconds
    with running.load(*subscription_ids, per_second=PER_SECOND, threads=6):
        while left > 0:
            pause = running.random.uniform(FEWEST_SECONDS, MOST_SECONDS)
            left -= pause
            _pass_time(pause)
            name = running.random.choice(sorted(FAULTS))
            faults[name] += 1
            FAULTS[name](running)
            running.heal()
            circuits |= _open_circuits(site)
            say(f"  {seconds - left:5.0f} s  {name}; {len(running.ingested)} calls")
    circuits |= _open_circuits(site)
    # What still waits then is what the oracle finds.
    with contextlib.suppress(AssertionError):
        running.wait_until_settled(LAST_WAIT_SECONDS)
    return Soaked(
        figures=running.figures(running.judge()),
        faults=faults,
        refused=sum(call.status == 503 for call in running.ingested),
        unanswered=sum(call.status not in (202, 503) for call in running.ingested),
        late=len(site.postgresql.query("SELECT 1 FROM delivery_attempts WHERE error = 'timeout'")),
        circuits_opened=len(circuits),
        ended_by_themselves=list(site.processes.ended_by_themselves),
    )


def _slow_and_moody(moods: random.Random) -> Callable[[Arrival], Answer]:
    calls: Counter[str] = Counter()

    def answer(arrival: Arrival) -> Answer:
        calls[arrival.path] += 1
        status = 500 if calls[arrival.path] % REFUSED_EVERY == 0 else 200
        return Answer(status=status, delay_seconds=moods.uniform(0, LONGEST_ANSWER_SECONDS))

    return answer


def _open_circuits(site: Site) -> set[tuple[object, object]]:
    """Return which circuits are open, and since when: each is for longer than the time between two faults."""
    return {(row["id"], row["circuit_opened_at"]) for row in site.postgresql.query(OPEN_CIRCUITS)}


def _pass_time(seconds: float) -> None:
    threading.Event().wait(seconds)


def _kill_worker(running: Scenario) -> None:
    """Kill a worker; frozen first, so that what it has in hand can be counted."""
    worker = running.random.choice(running.site.processes.running("worker"))
    worker.send(signal.SIGSTOP)
    running.allow_extra(running.count_leased())
    worker.send(signal.SIGKILL)
    worker.wait()


def _restart_postgresql(running: Scenario) -> None:
    with running.calls_may_be_repeated():
        running.site.postgresql.restart_immediately()


def _stop_redis(running: Scenario) -> None:
    running.site.redis.freeze()
    _pass_time(SILENT_SECONDS)
    running.site.redis.thaw()


def _take_scheduler_lock(running: Scenario) -> None:
    with running.site.redis.client() as client:
        client.set("rq:scheduler_lock", "of nobody", ex=LOCKED_SECONDS)
    _pass_time(LOCKED_SECONDS)


def _restart_workers(running: Scenario) -> None:
    for worker in running.site.processes.running("worker"):
        worker.send(signal.SIGTERM)
        worker.wait()


FAULTS: dict[str, Callable[[Scenario], None]] = {
    "worker killed": _kill_worker,
    "Redis flushed": lambda running: running.site.redis.flush(),
    "Redis killed and restarted empty": lambda running: running.site.redis.restart_empty(),
    "Redis stopped for 2 s": _stop_redis,
    "PostgreSQL restarted (immediate)": _restart_postgresql,
    "scheduler locked out": _take_scheduler_lock,
    "workers restarted one after the other": _restart_workers,
}
