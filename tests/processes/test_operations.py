"""A recover outlives the process that runs it."""

from collections import Counter

import pytest
import requests

from tests.waiting import wait_until

pytestmark = pytest.mark.processes

COUNT = 300
KILLS = 3

STORE_FAILED = """
INSERT INTO webhook_requests (
    id, subscription_id, event_type, payload, status, error, attempt_count, settled_at, next_attempt_at
)
SELECT gen_random_uuid(), %(id)s, 'invoice.paid', '{}', 'failed', 'timeout', 0, now(), NULL
FROM generate_series(1, %(count)s)
"""


def test_a_recover_whose_process_is_killed_goes_on_and_brings_back_each_request_once(running, subscribe, receiver):
    for name in ("web", "worker"):
        running.start(name)
    subscription_id = subscribe(receiver.url, max_in_flight=1000)
    running.query(STORE_FAILED, {"id": subscription_id, "count": COUNT})
    body = {"kind": "replay", "subscription": subscription_id}
    answer = requests.post(f"{running.url}/operations", json=body, timeout=10)
    assert answer.status_code == 202, answer.text
    url = f"{running.url}/operations/{answer.json()['id']}"

    def ask() -> dict:
        return requests.get(url, timeout=10).json()

    def wait_for(done: int) -> dict:
        return wait_until(ask, lambda operation: operation["done"] >= done, running.logs)

    for kill in range(1, KILLS + 1):
        maintenance = running.start("maintenance", OPERATION_RATE="100")
        # Within a second there are several batches: it is killed in one, or between two.
        assert wait_for(kill * COUNT // (KILLS + 2))["status"] == "running"
        maintenance.kill()
    running.start("maintenance", OPERATION_RATE="1000")
    wait_for(COUNT)
    receiver.wait_for(COUNT)
    operation = wait_until(ask, lambda operation: operation["status"] == "done", running.logs)
    assert (operation["total"], operation["done"]) == (COUNT, COUNT)
    arrivals = Counter(arrival.headers["webhook-id"] for arrival in receiver.arrivals)
    assert (len(arrivals), set(arrivals.values())) == (COUNT, {1})
