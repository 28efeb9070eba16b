"""One scenario: what goes in, what is done to the service, and the oracle's verdict at the end."""

import contextlib
import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.faults.crash_points import Crash
from tests.faults.load import Client, Ingested, Load
from tests.faults.oracle import Evidence, Verdict, judge
from tests.faults.receiver import SECRET
from tests.faults.servers import Rows
from tests.faults.site import CALL_SECONDS, LEASE_SECONDS, SLACK_SECONDS, TICK_SECONDS, Site
from tests.waiting import wait_until

SETTLE_SECONDS = 40

REQUESTS = """
SELECT
    r.*,
    r.status = 'pending' AND r.next_attempt_at < statement_timestamp() AND s.status = 'active'
        AND (s.circuit_opened_at IS NULL OR s.circuit_probe_at < statement_timestamp()) AS is_overdue
FROM webhook_requests AS r
JOIN subscriptions AS s ON s.id = r.subscription_id
"""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one scenario came to; recovery is from the end of the fault to the last arrival it delayed."""

    name: str
    seed: int
    verdict: Verdict
    recovery_seconds: float
    slowest_answer_seconds: float


class Scenario:
    """What a scenario does and sees. `random` is seeded: the same seed makes the same choices."""

    def __init__(self, site: Site, name: str, seed: int) -> None:
        self.site = site
        self.name = name
        self.seed = seed
        self.random = random.Random(f"{name} {seed}")
        self.ingested: list[Ingested] = []
        self.healed_at: list[float] = []
        self.extra_bound = 0
        self.is_purged = False
        self.wanted: Counter[str] = Counter()
        self._crashes_before = len(site.crash_points.crashes())
        self._number = 0
        self._number_lock = threading.Lock()

    def subscribe(self, **fields: object) -> str:
        """Create a subscription over the API and return its id."""
        body = {"target_url": f"{self.site.receiver.url}/hook", "secret": SECRET, "timeout_seconds": CALL_SECONDS}
        connection = http.client.HTTPConnection("127.0.0.1", self.site.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(
                "POST", "/subscriptions", json.dumps(body | fields), {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            content = answer.read()
        assert answer.status == 201, content
        return str(json.loads(content)["id"])

    def payload(self, marker: str = "") -> str:
        """Make a JSON text that no other request has, with spaces and numbers that must be kept."""
        with self._number_lock:
            self._number += 1
            number = self._number
        return f'{{"n":  {number}.0, "scenario": "{self.name} {self.seed}", "ä": "{marker}" }}'

    def ingest(self, subscription_id: str, count: int = 1, *, marker: str = "") -> list[Ingested]:
        """Ingest some requests one after the other."""
        client = Client(self.site.port)
        made = [client.ingest(subscription_id, self.payload(marker)) for _ in range(count)]
        client.close()
        self.ingested += made
        return made

    def accept(self, subscription_id: str, count: int = 1, *, marker: str = "") -> list[str]:
        """Ingest some requests, all of which must be accepted; return their ids."""
        made = self.ingest(subscription_id, count, marker=marker)
        assert all(call.is_accepted for call in made), made
        return [str(call.request_id) for call in made]

    @contextlib.contextmanager
    def load(self, *subscription_ids: str, per_second: float = 30, threads: int = 3) -> Iterator[None]:
        load = Load(
            self.site.port,
            subscription_ids=subscription_ids,
            payload=self.payload,
            per_second=per_second,
            threads=threads,
            note=self.ingested.append,
        )
        load.start()
        try:
            yield
        finally:
            load.stop()

    def wait_for_accepted(self, count: int, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until this many more calls are accepted."""
        goal = sum(call.is_accepted for call in self.ingested) + count
        self.wait(lambda: sum(call.is_accepted for call in self.ingested) >= goal, seconds)

    def wait_for_crashes(self, count: int) -> list[Crash]:
        """Wait for this many crashes in all, and allow the extra arrivals that they may cause."""
        self.wait(lambda: len(self.crashes()) >= count)
        return self.crashes()

    def crashes(self) -> list[Crash]:
        return self.site.crash_points.crashes()[self._crashes_before :]

    def wait(self, condition: Callable[[], object], seconds: float = SETTLE_SECONDS) -> None:
        wait_until(condition, bool, self.site.processes.logs, seconds=seconds)

    def wait_until_settled(self, seconds: float = SETTLE_SECONDS) -> None:
        try:
            self.wait(lambda: not self.requests("r.status = 'pending'"), seconds)
        except AssertionError:
            waiting = len(self.requests("r.status = 'pending'"))
            raise AssertionError(f"{waiting} requests still wait after {seconds} s") from None

    def requests(self, condition: str = "true") -> Rows:
        return self.site.postgresql.query(f"{REQUESTS} WHERE {condition}")

    def attempts(self, request_id: str) -> list[tuple[object, ...]]:
        """Return number and error of a request's attempts; a delivery's error is empty."""
        rows = self.site.postgresql.query(
            "SELECT attempt_number, error FROM delivery_attempts WHERE request_id = %s ORDER BY 1", [request_id]
        )
        return [(row["attempt_number"], row["error"]) for row in rows]

    def count_leased(self) -> int:
        """Count what workers have in hand: as many calls may be in flight, and no more."""
        return len(self.requests("r.lease_token IS NOT NULL AND r.next_attempt_at > statement_timestamp()"))

    @contextlib.contextmanager
    def calls_may_be_repeated(self) -> Iterator[None]:
        """Allow one extra arrival of each request that was not settled all the while.

        Its call may have been made within the block or before, and could not be settled. By
        the database's clock, and counted when it is over: what is leased at one moment is
        not all, as a claim may be committed just after it.
        """
        [begun] = self.site.postgresql.query("SELECT clock_timestamp() AS at")
        yield
        unsettled = "SELECT 1 FROM webhook_requests WHERE settled_at IS NULL OR settled_at > %s"
        self.allow_extra(len(self.site.postgresql.query(unsettled, [begun["at"]])))

    def allow_extra(self, count: int) -> None:
        self.extra_bound += count

    def heal(self) -> None:
        """Note that a fault is over."""
        self.healed_at.append(time.monotonic())

    def judge(self) -> Verdict:
        bound = self.extra_bound + sum(crash.in_flight for crash in self.crashes())
        return judge(
            Evidence(
                ingested=list(self.ingested),
                arrivals=list(self.site.receiver.arrivals),
                requests=self.requests(),
                attempts=self.site.postgresql.query("SELECT * FROM delivery_attempts"),
                extra_bound=bound,
                is_purged=self.is_purged,
                wanted=self.wanted,
            )
        )

    def recovery_seconds(self) -> float:
        """Return the longest time from the end of a fault until something accepted before it was settled.

        What went through several faults counts from the first.
        """
        settled_at = self._settled_at()
        ends = sorted(self.healed_at + [crash.at for crash in self.crashes()])
        waits = [0.0]
        for call in self.ingested:
            after = [end for end in ends if end >= call.at]
            if call.request_id in settled_at and after:
                waits.append(settled_at[call.request_id] - after[0])
        return max(waits)

    def _settled_at(self) -> dict[str | None, float]:
        """Return when each request was settled, on this machine's monotonic clock."""
        now = time.monotonic()
        rows = self.site.postgresql.query(
            "SELECT id, extract(epoch FROM clock_timestamp() - settled_at)::float AS age FROM webhook_requests"
        )
        return {str(row["id"]): now - float(str(row["age"])) for row in rows if row["age"] is not None}

    def figures(self, verdict: Verdict) -> Figures:
        return Figures(
            name=self.name,
            seed=self.seed,
            verdict=verdict,
            recovery_seconds=self.recovery_seconds(),
            slowest_answer_seconds=max((call.seconds for call in self.ingested), default=0.0),
        )


# What became of each scenario in this process, for the table.
finished: list[Figures] = []


@contextlib.contextmanager
def scenario(
    site: Site,
    name: str,
    seed: int,
    *,
    workers: int = 2,
    schedulers: int = 1,
    recovery_seconds: float = LEASE_SECONDS + TICK_SECONDS,
) -> Iterator[Scenario]:
    """Run one scenario on a fresh site, and the oracle after it.

    `recovery_seconds` is what is promised for it; the slack of a busy machine is added.
    """
    site.reset(web=1, worker=workers, scheduler=schedulers)
    running = Scenario(site, name, seed)
    try:
        yield running
        running.wait_until_settled()
    except AssertionError as error:
        error.add_note(site.processes.logs())
        site.is_suspect = True
        finished.append(running.figures(running.judge()))
        raise
    verdict = running.judge()
    figures = running.figures(verdict)
    finished.append(figures)
    assert not verdict.faults, "\n".join(verdict.faults[:20])
    assert figures.recovery_seconds <= recovery_seconds + SLACK_SECONDS
