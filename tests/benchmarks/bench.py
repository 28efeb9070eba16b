"""The service that is measured, with what it delivers to."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import requests

from tests.benchmarks import load
from tests.service import Running, Service
from tests.waiting import wait_until

ROUNDS = 3
SECRET = "a secret of the benchmark"
SUBSCRIPTIONS = 100
PAYLOAD_BYTES = 1000

# What a subscription has in flight at once, unless it says otherwise.
MAX_IN_FLIGHT = 32

# How long anything may take that is waited for: a round of `bloat` takes minutes.
WAIT_SECONDS = 1200

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

    def percentiles(self, subscription_id: str) -> list[float]:
        """Return p50, p95 and p99 in milliseconds from received to answered."""
        statement = LATENCY + " AND a.subscription_id = %(id)s"
        return self.service.query(statement, {"id": subscription_id})[0]["ms"]  # type: ignore[return-value]

    def calls(self, *subscription_ids: str, size: int = PAYLOAD_BYTES) -> Iterator[load.Call]:
        """Yield ingest calls with `size` bytes, for these subscriptions or all that `prepare` made."""
        wanted = subscription_ids or self.subscription_ids
        return load.ingest_calls(self.service.url, wanted, secret=SECRET, size=size)

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
        """Wait until nothing is pending any more."""
        # The question walks over what was delivered just now, and is not cheap.
        question = "SELECT 1 FROM webhook_requests WHERE status = 'pending' LIMIT 1"
        self._wait(question, {}, lambda rows: not rows, pause_seconds=0.2)

    def wait_until_delivered(self, *subscription_ids: str) -> None:
        """Wait until nothing is pending any more of these subscriptions."""
        question = """
            SELECT 1 FROM webhook_requests
            WHERE status = 'pending' AND subscription_id = ANY(%(ids)s::uuid[])
            LIMIT 1
        """
        self._wait(question, {"ids": list(subscription_ids)}, lambda rows: not rows, pause_seconds=0.02)

    def wait_for_calls(self, count: int) -> None:
        """Wait until the workers have made so many calls that are not answered yet."""
        question = "SELECT 1 FROM webhook_requests WHERE lease_token IS NOT NULL LIMIT %(count)s"
        self._wait(question, {"count": count}, lambda rows: len(rows) == count, pause_seconds=0.05)

    def _wait(
        self, question: str, parameters: dict[str, object], fits: Callable[[list], bool], *, pause_seconds: float
    ) -> None:
        # One connection for all: making a new one costs PostgreSQL more than the question.
        with self.service.connect() as connection:
            wait_until(
                lambda: connection.execute(question, parameters).fetchall(),
                fits,
                self.service.logs,
                seconds=WAIT_SECONDS,
                pause_seconds=pause_seconds,
            )

    def latency(self) -> str:
        row = self.service.query(LATENCY)[0]
        p50, p95, p99 = row["ms"]  # type: ignore[misc]
        return f"p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f} ms"


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
