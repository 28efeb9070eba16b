"""Nothing accepted is lost when web dies on the way from the database to the workers."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.load import Client, Ingested
from tests.faults.scenario import Scenario, scenario
from tests.faults.site import SLACK_SECONDS, TICK_SECONDS, Site

pytestmark = pytest.mark.processes

AT_ONCE = 50


def test_a_request_whose_process_died_before_the_answer_is_delivered_by_the_next_tick(
    site: Site, size: int, seed: int
):
    """The process dies between the commit and the wake-up: delivered by the next tick."""
    with scenario(site, "web killed after the commit", seed, recovery_seconds=TICK_SECONDS) as running:
        _kill_web(running, "after_commit", size, expected=None)


def test_a_request_whose_wake_up_died_with_its_process_is_delivered_by_the_next_tick(
    site: Site, size: int, seed: int
):
    """The process dies between the commit and the wake-up: delivered by the next tick."""
    with scenario(site, "web killed before the wake-up", seed, recovery_seconds=TICK_SECONDS) as running:
        _kill_web(running, "before_wake_up", size, expected=202)


def test_a_call_repeated_because_it_got_no_answer_makes_one_request(site: Site, size: int, seed: int):
    """The client repeats a call it got no answer to: one request, with Idempotency-Key; 50 at once too."""
    with scenario(site, "call repeated without an answer", seed, recovery_seconds=TICK_SECONDS) as running:
        subscription_id = running.subscribe()
        for number in range(1, size + 1):
            payload, key = running.payload(), f"call {number}"
            site.crash_points.arm("after_commit")
            [unanswered] = _repeat(site, subscription_id, payload, key, times=1)
            assert unanswered.status is None
            _wait_for_new_web(running, running.wait_for_crashes(number)[-1].pid)
            repeated = _repeat(site, subscription_id, payload, key, times=AT_ONCE)
            assert {call.status for call in repeated} == {202}
            assert len({call.request_id for call in repeated}) == 1
            running.ingested += [unanswered, *repeated]
            running.wait_until_settled()
        assert len(running.requests()) == len(site.receiver.arrivals) == size


def _repeat(site: Site, subscription_id: str, payload: str, key: str, *, times: int) -> list[Ingested]:
    """Make the same call so many times at once."""

    def call(_: int) -> Ingested:
        client = Client(site.port)
        made = client.ingest(subscription_id, payload, idempotency_key=key)
        client.close()
        return made

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(call, range(times)))


def _kill_web(running: Scenario, point: str, times: int, *, expected: int | None) -> None:
    """Kill web at `point`; the call that was on its way may end either way, its request must not."""
    subscription_id = running.subscribe()
    for number in range(1, times + 1):
        running.site.crash_points.arm(point)
        [call] = running.ingest(subscription_id)
        crash = running.wait_for_crashes(number)[-1]
        assert call.status in (None, expected)
        running.wait(lambda count=number: len(running.requests("r.status = 'delivered'")) == count)
        assert len(running.site.receiver.arrivals) == number
        assert running.site.receiver.arrivals[-1].digest == call.digest
        assert running.site.receiver.arrivals[-1].at - crash.at < TICK_SECONDS + SLACK_SECONDS
        _wait_for_new_web(running, crash.pid)


def _wait_for_new_web(running: Scenario, pid: int) -> None:
    """Wait until another process has taken the place of the one that was killed."""
    running.wait(lambda: [one for one in running.site.processes.running("web") if one.pid != pid])
    running.site.wait_for_web()
