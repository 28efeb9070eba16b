"""How long a delivery takes, from received to answered, beside load, holds and hanging receivers."""

import time

from tests.benchmarks import load
from tests.benchmarks.bench import MAX_IN_FLIGHT, ROUNDS, Bench, hanging_receiver, worker_running
from tests.benchmarks.figures import cpu_seconds, median, show

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
            bench.wait_until_delivered(*bench.subscription_ids)
            cost = (cpu_seconds(worker) - cpu_before) / result.answers * 1e6
            show(
                "held",
                bench.latency(),
                [],
                f"beside {HELD:,} held subscriptions; {cost:.0f} µs of worker CPU each",
            )


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


def bench_fair(bench: Bench) -> None:
    """5,000 due for a receiver that hangs 10 s, 50 events a second for a healthy one: how long these take."""
    latencies = []
    with worker_running(bench), hanging_receiver() as hanging_url:
        for _ in range(ROUNDS):
            bench.prepare()
            healthy, hanging = bench.subscription_ids[0], bench.subscribe(hanging_url)
            bench.store(hanging, 5_000)
            bench.wait_for_calls(MAX_IN_FLIGHT)
            load.run(bench.calls(healthy), seconds=1, connections=32, per_second=50)
            bench.wait_until_delivered(healthy)
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
            bench.wait_until_delivered(*bench.subscription_ids)
            rates.append(result.answers / (time.monotonic() - started_at))
    show("sustained", f"{median(rates):,.0f} events/s to settled", rates, "beside 5,000 due that hang 10 s")
