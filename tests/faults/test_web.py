"""Nothing accepted is lost when web dies on the way from the database to the workers."""

import pytest

from tests.faults.scenario import Scenario, scenario
from tests.faults.site import SLACK_SECONDS, TICK_SECONDS, Site

pytestmark = pytest.mark.processes


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
        running.wait(
            lambda pid=crash.pid: [one for one in running.site.processes.running("web") if one.pid != pid]
        )
        running.site.wait_for_web()
