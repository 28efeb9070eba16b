"""One customer cannot hurt another: the short form of the benchmark."""

import threading

import pytest

from tests.receiver import Answer, running_receiver
from tests.waiting import wait_until

pytestmark = pytest.mark.processes

HANGING, HEALTHY = 5_000, 50

STORE = """
INSERT INTO webhook_requests (id, subscription_id, event_type, payload)
SELECT gen_random_uuid(), %(id)s, 'invoice.paid', '{}' FROM generate_series(1, %(count)s)
"""

P95 = """
SELECT percentile_cont(0.95) WITHIN GROUP (ORDER BY a.attempted_at - r.received_at) < interval '1 second' AS ok
FROM delivery_attempts AS a JOIN webhook_requests AS r ON r.id = a.request_id
WHERE a.subscription_id = %(id)s
"""


def test_a_receiver_that_hangs_costs_a_healthy_one_less_than_a_second(running, subscribe, ingest, receiver):
    """5,000 due for a receiver that hangs 10 s, and 50 for a healthy one: the healthy p95 stays under 1 s."""
    running.start("web")
    end = threading.Event()
    with running_receiver() as hanging_receiver:
        hanging_receiver.otherwise = Answer(hold=end)
        hanging, healthy = subscribe(hanging_receiver.url, timeout_seconds=10), subscribe(receiver.url)
        running.query(STORE, {"id": hanging, "count": HANGING})
        running.start("worker")
        hanging_receiver.wait_for(32)
        for _ in range(HEALTHY):
            ingest(healthy)
        receiver.wait_for(HEALTHY)
        in_flight = len(hanging_receiver.arrivals)
        end.set()
    settled = "SELECT count(*) = %(count)s AS ok FROM delivery_attempts WHERE subscription_id = %(id)s"
    wait_until(
        lambda: running.query(settled, {"id": healthy, "count": HEALTHY}), lambda rows: rows[0]["ok"], running.logs
    )
    assert in_flight == 32
    assert running.query(P95, {"id": healthy})[0]["ok"]
