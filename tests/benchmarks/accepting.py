"""How fast events are accepted: one by one, in batches, and for many subscriptions."""

from tests.benchmarks import load
from tests.benchmarks.bench import PAYLOAD_BYTES, ROUNDS, SUBSCRIPTIONS, Bench
from tests.benchmarks.figures import median, percentiles, show

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
