"""How fast what is due is delivered, also after a million deliveries."""

import time

from tests.benchmarks.bench import ROUNDS, SUBSCRIPTIONS, Bench
from tests.benchmarks.figures import cpu_seconds, median, show

DRAINED = 20_000

DRAIN_SECONDS = """
SELECT extract(epoch FROM max(r.settled_at) - min(a.attempted_at))::float AS seconds
FROM delivery_attempts AS a JOIN webhook_requests AS r ON r.id = a.request_id
"""

BLOAT_ROUNDS = 10
BLOAT_BATCH = 100_000
BLOAT_SIZES = """
SELECT format(
    'table %s, index of what is pending %s',
    pg_size_pretty(pg_relation_size('webhook_requests')), pg_size_pretty(pg_relation_size('requests_pending'))
) AS sizes
"""


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
