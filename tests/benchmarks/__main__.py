"""`make bench`: what this machine does, as medians of several rounds.

Everything runs on this machine, on loopback: PostgreSQL and Redis from wheels with fsync
on, the Procfile's processes, the sink and the load. Give names of parts to run only those.
"""

import argparse
import base64
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import requests

from config import embedded
from tests.benchmarks import load
from tests.service import Running, Service, service

ROUNDS = 3
SECRET = "a secret of the benchmark"
SUBSCRIPTIONS = 100
PAYLOAD_BYTES = 1000
DRAINED = 20_000

DRAIN_SECONDS = """
SELECT extract(epoch FROM max(r.settled_at) - min(a.attempted_at))::float AS seconds
FROM delivery_attempts AS a JOIN webhook_requests AS r ON r.id = a.request_id
"""

HELD = 10_000
HELD_SUBSCRIPTIONS = """
INSERT INTO subscriptions
SELECT (made).*
FROM (
    SELECT jsonb_populate_record(s, jsonb_build_object('id', gen_random_uuid(), 'circuit_opened_at', now()))
    FROM subscriptions AS s, generate_series(1, %(count)s)
    WHERE s.id = (SELECT id FROM subscriptions LIMIT 1)
) AS copies (made)
"""
HELD_REQUESTS = """
INSERT INTO webhook_requests (id, subscription_id, event_type, payload)
SELECT gen_random_uuid(), id, 'invoice.paid', 'x' FROM subscriptions WHERE circuit_opened_at IS NOT NULL
"""

BLOAT_ROUNDS = 10
BLOAT_BATCH = 100_000
BLOAT_SIZES = """
SELECT format(
    'table %s, index of what is pending %s',
    pg_size_pretty(pg_relation_size('webhook_requests')), pg_size_pretty(pg_relation_size('requests_pending'))
) AS sizes
"""

# Of the subscriptions that `prepare` made: each takes one event type.
ONE_TYPE_EACH = """
UPDATE subscriptions AS s
SET event_types = ARRAY['type.' || numbered.n]
FROM (SELECT id, row_number() OVER () - 1 AS n FROM subscriptions) AS numbered
WHERE s.id = numbered.id
"""

# Each of them nine times more.
TENFOLD = """
INSERT INTO subscriptions
SELECT (jsonb_populate_record(s, jsonb_build_object('id', gen_random_uuid()))).*
FROM subscriptions AS s, generate_series(1, 9)
"""

LATENCY = """
SELECT
    count(*) AS count,
    percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (
        ORDER BY extract(epoch FROM a.attempted_at - r.received_at) * 1000 + a.response_ms
    ) AS ms
FROM delivery_attempts AS a
JOIN webhook_requests AS r ON r.id = a.request_id
WHERE a.success AND a.attempt_number = 1
"""


class Bench:
    """The service under test, and the sink its subscriptions deliver to."""

    def __init__(self, service: Service, sink_url: str) -> None:
        self.service = service
        self.sink_url = sink_url
        self.subscription_ids: list[str] = []

    def prepare(self) -> None:
        """Begin afresh: empty tables, and subscriptions that deliver to the sink."""
        self.service.query("TRUNCATE delivery_attempts, webhook_requests, events, subscriptions")
        body = {"target_url": self.sink_url, "secret": SECRET}
        with requests.Session() as session:
            answers = [session.post(f"{self.service.url}/subscriptions", json=body) for _ in range(SUBSCRIPTIONS)]
        self.subscription_ids = [answer.json()["id"] for answer in answers]

    def subscribe(self, target_url: str) -> str:
        """Make one more subscription, which the load does not use."""
        body = {"target_url": target_url, "secret": SECRET}
        return str(requests.post(f"{self.service.url}/subscriptions", json=body, timeout=10).json()["id"])

    def store(self, subscription_id: str, count: int) -> None:
        """Store `count` requests of 1 KB that are due."""
        self.service.query(
            """
            INSERT INTO webhook_requests (id, subscription_id, event_type, payload)
            SELECT gen_random_uuid(), %(id)s, 'invoice.paid', convert_to(repeat('x', %(size)s), 'UTF8')
            FROM generate_series(1, %(count)s)
            """,
            {"id": subscription_id, "size": PAYLOAD_BYTES, "count": count},
        )

    def hold(self) -> None:
        """Have nothing delivered until `release`, without touching the requests."""
        self.service.query("UPDATE subscriptions SET status = 'paused'")

    def release(self) -> None:
        self.service.query("UPDATE subscriptions SET status = 'active'")

    def count_pending(self, *subscription_ids: str) -> int:
        statement = """
            SELECT count(*) AS n FROM webhook_requests
            WHERE status = 'pending' AND subscription_id = ANY(%(ids)s::uuid[])
        """
        rows = self.service.query(statement, {"ids": list(subscription_ids)})
        return int(rows[0]["n"])  # type: ignore[call-overload]

    def percentiles(self, subscription_id: str) -> list[float]:
        """Return p50, p95 and p99 in milliseconds from received to answered."""
        statement = LATENCY + " AND a.subscription_id = %(id)s"
        return self.service.query(statement, {"id": subscription_id})[0]["ms"]  # type: ignore[return-value]

    def calls(self) -> Iterator[load.Call]:
        return load.ingest_calls(self.service.url, self.subscription_ids, secret=SECRET, size=PAYLOAD_BYTES)

    def publish(self, path: str, body: object, *, calls: int) -> list[float]:
        """Make so many calls to a path below /events, one after the other; return the seconds of each."""
        url, data = f"{self.service.url}/events{path}", json.dumps(body).encode()
        seconds = []
        with requests.Session() as session:
            for _ in range(calls):
                started_at = time.monotonic()
                answer = session.post(url, data, headers={"Content-Type": "application/json"})
                seconds.append(time.monotonic() - started_at)
                assert answer.status_code == 202
        return seconds

    def wait_until_settled(self) -> None:
        # One connection for all: making a new one costs PostgreSQL more than the question.
        with self.service.connect() as connection:
            while connection.execute("SELECT 1 FROM webhook_requests WHERE status = 'pending' LIMIT 1").fetchone():
                time.sleep(0.2)  # the question walks over what was delivered just now, and is not cheap

    def latency(self) -> str:
        row = self.service.query(LATENCY)[0]
        p50, p95, p99 = row["ms"]  # type: ignore[misc]
        return f"p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f} ms"


def bench_ingest(bench: Bench) -> None:
    """POST /ingest: signed, stored, committed; 2 web processes, 32 connections, no worker."""
    rates, latencies = [], []
    for _ in range(ROUNDS):
        bench.prepare()
        load.run(bench.calls(), seconds=1, connections=32)
        result = load.run(bench.calls(), seconds=5, connections=32)
        assert result.refusals == 0
        rates.append(result.per_second)
        latencies.append(result.latencies_ms)
    show("ingest", f"{median(rates):,.0f} requests/s", rates, percentiles(latencies[-1]))


def bench_batch(bench: Bench) -> None:
    """POST /events/batch: 1,000 events of 1 KB, one subscription each; one client, no worker."""
    events = [{"event_type": f"type.{n % SUBSCRIPTIONS}", "body": "x" * (PAYLOAD_BYTES - 50)} for n in range(1000)]
    rates = []
    for _ in range(ROUNDS):
        bench.prepare()
        bench.service.query(ONE_TYPE_EACH)
        seconds = bench.publish("/batch", {"events": events}, calls=20)
        assert bench.service.query("SELECT count(*) AS n FROM webhook_requests")[0]["n"] == 20_000
        rates.append(20_000 / sum(seconds))
    show("batch", f"{median(rates):,.0f} events/s", rates, "in batches of 1,000 to one subscription each")


def bench_fan_out(bench: Bench) -> None:
    """POST /events: one event of 1 KB to 1,000 subscriptions; one client, no worker."""
    event = {"event_type": "invoice.paid", "body": "x" * PAYLOAD_BYTES}
    times: list[float] = []
    for _ in range(ROUNDS):
        bench.prepare()
        bench.service.query(TENFOLD)
        bench.service.query("VACUUM ANALYZE subscriptions")
        bench.publish("", event, calls=3)
        times += [seconds * 1000 for seconds in bench.publish("", event, calls=20)]
        assert bench.service.query("SELECT count(*) AS n FROM webhook_requests")[0]["n"] == 23_000
    show("fan-out", f"median {median(times):.0f} ms for 1,000 subscriptions", [], f"worst {max(times):.0f} ms")


def bench_drain(bench: Bench) -> None:
    """One worker delivers 20,000 due requests of 1 KB over 100 subscriptions, with its bookkeeping."""
    rates, costs = [], []
    worker = bench.service.start("worker")
    for _ in range(ROUNDS):
        bench.prepare()
        bench.hold()
        for subscription_id in bench.subscription_ids:
            bench.store(subscription_id, DRAINED // SUBSCRIPTIONS)
        bench.service.query("VACUUM ANALYZE webhook_requests")
        cpu_before = cpu_seconds(worker)
        bench.release()
        bench.wait_until_settled()
        # From the first attempt on: nobody wakes the idle worker here, it looks by itself.
        seconds = bench.service.query(DRAIN_SECONDS)[0]["seconds"]
        rates.append(DRAINED / seconds)  # type: ignore[operator]
        costs.append((cpu_seconds(worker) - cpu_before) / DRAINED * 1e6)
    show("drain", f"{median(rates):,.0f} deliveries/s", rates, f"{median(costs):.0f} µs of worker CPU each")
    worker.stop()


def bench_held(bench: Bench) -> None:
    """A paced 1,000 events a second beside 10,000 subscriptions whose circuits are open, with one pending each."""
    with worker_running(bench) as worker:
        for _ in range(ROUNDS):
            bench.prepare()
            bench.service.query(HELD_SUBSCRIPTIONS, {"count": HELD})
            bench.service.query(HELD_REQUESTS)
            bench.service.query("VACUUM ANALYZE webhook_requests, subscriptions")
            cpu_before = cpu_seconds(worker)
            result = load.run(bench.calls(), seconds=6, connections=32, per_second=1000)
            while bench.count_pending(*bench.subscription_ids):
                time.sleep(0.02)
            cost = (cpu_seconds(worker) - cpu_before) / result.answers * 1e6
            show(
                "held",
                bench.latency(),
                [],
                f"beside {HELD:,} held subscriptions; {cost:.0f} µs of worker CPU each",
            )


def bench_bloat(bench: Bench) -> None:
    """Whether claims and deliveries are after 1,000,000 deliveries what they were: takes minutes."""
    bench.prepare()
    worker = bench.service.start("worker")
    rates = []
    for _ in range(BLOAT_ROUNDS):
        bench.hold()
        for subscription_id in bench.subscription_ids:
            bench.store(subscription_id, BLOAT_BATCH // SUBSCRIPTIONS)
        bench.release()
        started_at = time.monotonic()
        bench.wait_until_settled()
        rates.append(BLOAT_BATCH / (time.monotonic() - started_at))
    worker.stop()
    sizes = bench.service.query(BLOAT_SIZES)[0]["sizes"]
    show("bloat", f"{median(rates):,.0f} deliveries/s", rates, f"of {BLOAT_BATCH:,} each; {sizes}")
    print(f"bloat           claims of 500 afterwards: {time_claims(bench)}", flush=True)
    # Right after it, so that both are measured on the same machine with the same neighbours.
    bench.prepare()
    print(f"bloat           claims of 500 in empty tables: {time_claims(bench)}", flush=True)


def time_claims(bench: Bench) -> str:
    """Store 10,000 requests, claim some, leave them to their leases, and return how long the claims took."""
    for subscription_id in bench.subscription_ids:
        bench.store(subscription_id, 10_000 // SUBSCRIPTIONS)
    return bench.service.run_module("tests.benchmarks.claiming")


def bench_sustained(bench: Bench) -> None:
    """Ingest as fast as it goes with a worker beside it, until all is settled."""
    rates = []
    with worker_running(bench):
        for _ in range(ROUNDS):
            bench.prepare()
            started_at = time.monotonic()
            result = load.run(bench.calls(), seconds=6, connections=32)
            bench.wait_until_settled()
            assert result.refusals == 0
            rates.append(result.answers / (time.monotonic() - started_at))
        show(
            "sustained", f"{median(rates):,.0f} events/s to settled", rates, f"in the last round {bench.latency()}"
        )


def bench_paced(bench: Bench) -> None:
    """1,000 events a second, at an even pace: from received to answered by the receiver."""
    with worker_running(bench):
        for _ in range(ROUNDS):
            bench.prepare()
            result = load.run(bench.calls(), seconds=6, connections=32, per_second=1000)
            bench.wait_until_settled()
            show("paced", f"{result.per_second:,.0f} events/s", [], bench.latency())


def bench_idle(bench: Bench) -> None:
    """One event at a time into an idle service: from received to answered by the receiver."""
    with worker_running(bench):
        for _ in range(ROUNDS):
            bench.prepare()
            load.run(bench.calls(), seconds=10, connections=1, per_second=10)
            bench.wait_until_settled()
            show("idle latency", bench.latency(), [], "10 events/s")


def bench_memory(bench: Bench) -> None:
    """Resident memory of each process after some load."""
    started = [bench.service.start(name) for name in ("worker", "maintenance", "scheduler")]
    bench.prepare()
    load.run(bench.calls(), seconds=3, connections=32)
    bench.wait_until_settled()
    for running in bench.service.running:
        if running.process.poll() is not None:
            continue
        sizes = ", ".join(f"{rss_megabytes(pid):.0f}" for pid in (running.pid, *descendants(running.pid)))
        print(f"memory          {running.name}: {sizes} MB", flush=True)
    for running in started:
        running.stop()


def bench_cache(bench: Bench) -> None:
    """GET /subscriptions/{id}: the cached look-up against the query, alone and end to end."""
    bench.prepare()
    print(bench.service.run_module("tests.benchmarks.cache"))


def bench_fair(bench: Bench) -> None:
    """5,000 due for a receiver that hangs 10 s, 50 for a healthy one: how long the healthy ones take."""
    latencies = []
    with worker_running(bench), hanging_receiver() as hanging_url:
        for _ in range(ROUNDS):
            bench.prepare()
            healthy, hanging = bench.subscription_ids[0], bench.subscribe(hanging_url)
            bench.store(hanging, 5_000)
            time.sleep(1)
            bench.store(healthy, 50)
            while bench.count_pending(healthy):
                time.sleep(0.01)
            latencies.append(bench.percentiles(healthy))
    p50, p95, p99 = (median([each[index] for each in latencies]) for index in range(3))
    show("fair", f"healthy p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f} ms", [], "beside 5,000 due that hang 10 s")


def bench_sustained_beside_hanging(bench: Bench) -> None:
    """The sustained load again, with 5,000 due for a receiver that hangs."""
    rates = []
    with worker_running(bench), hanging_receiver() as hanging_url:
        for _ in range(ROUNDS):
            bench.prepare()
            hanging = bench.subscribe(hanging_url)
            bench.store(hanging, 5_000)
            started_at = time.monotonic()
            result = load.run(bench.calls(), seconds=6, connections=32)
            while bench.count_pending(*bench.subscription_ids):
                time.sleep(0.02)
            rates.append(result.answers / (time.monotonic() - started_at))
    show("sustained", f"{median(rates):,.0f} events/s to settled", rates, "beside 5,000 due that hang 10 s")


def bench_shapes(bench: Bench) -> None:
    """One claim of 500: of 1,000,000 pending over 10,000 subscriptions, and beside one with 1,000,000 due."""
    bench.prepare()
    print(bench.service.run_module("tests.benchmarks.shapes"))


def bench_lists(bench: Bench) -> None:
    """GET /requests with each filter, of 1,000,000 requests."""
    bench.service.query("TRUNCATE delivery_attempts, webhook_requests, events, subscriptions")
    print(bench.service.run_module("tests.benchmarks.lists"))


def bench_hanging_memory(bench: Bench) -> None:
    """Resident memory of a worker with 2,000 calls hanging at once."""
    bench.prepare()
    with hanging_receiver() as hanging_url:
        for _ in range(70):
            bench.store(bench.subscribe(hanging_url), 32)
        worker = bench.service.start("worker", WORKER_CONCURRENCY="2500")
        in_flight = "SELECT 1 FROM webhook_requests WHERE lease_token IS NOT NULL OFFSET 1999 LIMIT 1"
        while not bench.service.query(in_flight):
            time.sleep(0.05)
        print(f"memory          worker: {rss_megabytes(worker.pid):.0f} MB with 2,000 calls hanging", flush=True)
        worker.kill()


PARTS: dict[str, Callable[[Bench], None]] = {
    "ingest": bench_ingest,
    "batch": bench_batch,
    "fan-out": bench_fan_out,
    "drain": bench_drain,
    "sustained": bench_sustained,
    "paced": bench_paced,
    "idle": bench_idle,
    "fair": bench_fair,
    "beside": bench_sustained_beside_hanging,
    "held": bench_held,
    "shapes": bench_shapes,
    "lists": bench_lists,
    "memory": bench_memory,
    "hanging": bench_hanging_memory,
    "cache": bench_cache,
}

# Only when asked for by name.
LONG_PARTS: dict[str, Callable[[Bench], None]] = {"bloat": bench_bloat}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "part", nargs="*", choices=[[], *PARTS, *LONG_PARTS], help="Parts to run; all but bloat if none is named."
    )
    chosen = parser.parse_args().part or list(PARTS)
    with tempfile.TemporaryDirectory(prefix="webhooks-bench-") as name, running_bench(Path(name)) as bench:
        print(f"the sink alone  {sink_limit(bench):,.0f} requests/s, asyncio, its load beside it", flush=True)
        for part in chosen:
            (PARTS | LONG_PARTS)[part](bench)


@contextlib.contextmanager
def running_bench(folder: Path) -> Iterator[Bench]:
    folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(embedded.start_postgresql(folder).stop)
        stack.callback(embedded.start_redis(folder).stop)
        sink_url = f"http://127.0.0.1:{stack.enter_context(background_program('tests.benchmarks.sink'))}/"
        made = stack.enter_context(
            service(
                folder,
                database_url=embedded.database_url(folder),
                redis_url=embedded.redis_url(folder),
                SECRET_KEY="of the benchmark",
                SECRET_KEYS=base64.b64encode(os.urandom(32)).decode(),
                DATA_DIR=str(folder),
                LOG_LEVEL="WARNING",
            )
        )
        made.start("web", WEB_PROCESSES="2")
        yield Bench(made, sink_url)


@contextlib.contextmanager
def worker_running(bench: Bench) -> Iterator[Running]:
    worker = bench.service.start("worker")
    try:
        yield worker
    finally:
        worker.stop()


@contextlib.contextmanager
def hanging_receiver() -> Iterator[str]:
    """Run a receiver that answers after 10 seconds; yield its URL."""
    with background_program("tests.benchmarks.sink", "10") as line:
        yield f"http://127.0.0.1:{line}/"


@contextlib.contextmanager
def background_program(module: str, *arguments: str) -> Iterator[str]:
    """Run a module until the end of the block; yield the first line that it printed."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def sink_limit(bench: Bench) -> float:
    body = b"x" * PAYLOAD_BYTES
    call = load.Call(tag=None, url=bench.sink_url, headers=[], body=body, timeout_seconds=10)
    return load.run(iter(lambda: call, None), seconds=2, connections=64).per_second


def show(name: str, figure: str, rounds: list[float], detail: str) -> None:
    each = f" (rounds: {', '.join(f'{value:,.0f}' for value in rounds)})" if rounds else ""
    print(f"{name:<15} {figure}{each}; {detail}", flush=True)


def median(values: list[float]) -> float:
    return statistics.median(values)


def percentiles(sorted_ms: list[int]) -> str:
    def at(share: float) -> int:
        return sorted_ms[min(len(sorted_ms) - 1, int(len(sorted_ms) * share))]

    return f"p50 {at(0.5)}, p99 {at(0.99)} ms"


def descendants(pid: int) -> list[int]:
    """Return the processes below `pid`."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [grandchild for child in children for grandchild in descendants(child)]


def cpu_seconds(running: Running) -> float:
    fields = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_megabytes(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
