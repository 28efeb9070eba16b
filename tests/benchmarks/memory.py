"""What memory the processes take."""

from tests.benchmarks import load
from tests.benchmarks.bench import MAX_IN_FLIGHT, Bench, hanging_receiver
from tests.benchmarks.figures import descendants, rss_megabytes


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


def bench_large_memory(bench: Bench) -> None:
    """Resident memory of web after 5 seconds of ingest calls with payloads of nearly 1 MB over 32 connections."""
    bench.prepare()
    result = load.run(bench.calls(size=1_000_000), seconds=5, connections=32)
    assert result.refusals == 0
    web = next(running for running in bench.service.running if running.name == "web")
    sizes = ", ".join(f"{rss_megabytes(pid):.0f}" for pid in descendants(web.pid))
    rate = f"{result.per_second:,.0f} calls/s of 1 MB"
    print(f"memory          web: {sizes} MB after {rate} over 32 connections", flush=True)


def bench_hanging_memory(bench: Bench) -> None:
    """Resident memory of a worker with 2,000 calls hanging at once."""
    bench.prepare()
    with hanging_receiver() as hanging_url:
        for _ in range(70):
            bench.store(bench.subscribe(hanging_url), MAX_IN_FLIGHT)
        worker = bench.service.start("worker", WORKER_CONCURRENCY="2500")
        bench.wait_for_calls(2_000)
        print(f"memory          worker: {rss_megabytes(worker.pid):.0f} MB with 2,000 calls hanging", flush=True)
        worker.kill()
