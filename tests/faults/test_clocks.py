"""Due times do not move with the clock of a host: only the database's counts."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.faults.receiver import Answer
from tests.faults.scenario import scenario
from tests.faults.site import LOOK_SECONDS, Site

pytestmark = pytest.mark.processes

HOUR = timedelta(hours=1)
RETRY_SECONDS = 3
# Each fails once: fewer calls than open a circuit.
REQUESTS = 4

# The times between the attempts of each request, by the log; and how far the log's times are
# from those of the database, at most.
SPANS = """
SELECT
    extract(epoch FROM max(a.attempted_at) - min(a.attempted_at))::float AS seconds,
    greatest(
        abs(extract(epoch FROM min(a.attempted_at) - r.received_at)),
        abs(extract(epoch FROM max(a.attempted_at) - r.settled_at))
    )::float AS off_seconds
FROM webhook_requests AS r
JOIN delivery_attempts AS a ON a.request_id = r.id
GROUP BY r.id
"""


def test_due_times_do_not_move_though_a_clock_is_wrong_on_one_host(site: Site, size: int, seed: int):
    """A clock is wrong on one host: due times do not move: only the database's clock counts."""
    patience = RETRY_SECONDS * 1.1 + LOOK_SECONDS
    with scenario(
        site, "clock wrong on one host", seed, workers=0, schedulers=0, recovery_seconds=patience
    ) as running:
        site.receiver.otherwise = lambda arrival: Answer(status=500 if arrival.attempt_number == 1 else 200)
        for number in range(2 * size):
            with site.processes.wrong_clock(-HOUR if number % 2 == 0 else HOUR):
                site.processes.want(web=1, worker=1, scheduler=1)
            request_ids = running.accept(running.subscribe(retry_schedule=[RETRY_SECONDS]), REQUESTS)
            running.heal()  # the time runs from here
            running.wait_until_settled()
            assert _has_wrong_clock(site)
            site.processes.want(web=1)
            for request_id in request_ids:
                assert running.attempts(request_id) == [(1, "http_5xx"), (2, "")]
        spans = site.postgresql.query(SPANS)
        assert all(float(str(span["seconds"])) >= RETRY_SECONDS for span in spans)
        assert all(timedelta(seconds=float(str(span["off_seconds"]))) < HOUR / 2 for span in spans)


def _has_wrong_clock(site: Site) -> bool:
    """Return whether the worker has told RQ a time of its birth that is far from now."""
    with site.redis.client() as client:
        births = [client.hget(key, "birth") for key in client.smembers("rq:workers")]
    now = datetime.now(UTC)
    return any(abs(datetime.fromisoformat(birth.decode()) - now) > HOUR / 2 for birth in births if birth)
