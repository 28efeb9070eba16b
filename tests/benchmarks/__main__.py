"""`make bench`: what this machine does, as medians of several rounds.

Everything runs on this machine, on loopback: PostgreSQL and Redis from wheels with fsync
on, the Procfile's processes, the sink and the load. Give names of parts to run only those.
"""

import argparse
import base64
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from config import embedded
from tests.benchmarks import load
from tests.benchmarks.accepting import bench_batch, bench_fan_out, bench_ingest
from tests.benchmarks.bench import (
    PAYLOAD_BYTES,
    Bench,
    background_program,
)
from tests.benchmarks.draining import bench_bloat, bench_drain
from tests.benchmarks.latencies import (
    bench_fair,
    bench_held,
    bench_idle,
    bench_paced,
    bench_sustained,
    bench_sustained_beside_hanging,
)
from tests.benchmarks.memory import bench_hanging_memory, bench_large_memory, bench_memory
from tests.service import service


def bench_cache(bench: Bench) -> None:
    """GET /subscriptions/{id}: the cached look-up against the query, alone and end to end."""
    bench.prepare()
    print(bench.service.run_module("tests.benchmarks.cache"))


def bench_shapes(bench: Bench) -> None:
    """One claim of 500: of 1,000,000 pending over 10,000 subscriptions, and beside one with 1,000,000 due."""
    bench.prepare()
    print(bench.service.run_module("tests.benchmarks.shapes"))


def bench_lists(bench: Bench) -> None:
    """GET /requests with each filter, of 1,000,000 requests."""
    bench.service.query("TRUNCATE delivery_attempts, webhook_requests, events, subscriptions")
    print(bench.service.run_module("tests.benchmarks.lists"))


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
    "large": bench_large_memory,
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


def sink_limit(bench: Bench) -> float:
    body = b"x" * PAYLOAD_BYTES
    call = load.Call(tag=None, url=bench.sink_url, headers=[], body=body, timeout_seconds=10)
    return load.run(iter(lambda: call, None), seconds=2, connections=64).per_second


if __name__ == "__main__":
    main()
