"""What people ask for does no harm to what is being delivered."""

import re

import pytest

from tests.faults.receiver import Answer
from tests.faults.scenario import scenario
from tests.faults.site import Site

pytestmark = pytest.mark.processes

CLICKS = 4


def test_a_purge_with_retention_0_under_load_removes_nothing_that_is_pending(site: Site, size: int, seed: int):
    """Purge with retention 0 under load: no error, nothing pending removed."""
    with scenario(site, "purge with retention 0 under load", seed) as running:
        running.is_purged = True
        purged = 0
        with running.load(running.subscribe(), running.subscribe(), per_second=60):
            for _ in range(3 * size):
                running.wait_for_accepted(15)
                output = site.processes.run("purge --older-than 0")
                [count] = re.findall(r"Purged (\d+) requests", output)
                purged += int(count)
        running.wait_until_settled()
        assert purged > 0
        assert {call.status for call in running.ingested} == {202}
        assert len(running.requests()) == len(running.ingested) - purged


def test_a_replay_clicked_twice_at_once_is_one_replay(site: Site, size: int, seed: int):
    """Replay clicked twice: one replay."""
    with scenario(site, "replay clicked twice at once", seed) as running:
        subscription_id = running.subscribe(timeout_seconds=20)
        for _ in range(size):
            [request_id] = running.accept(subscription_id)
            running.wait_until_settled()
            gate = site.receiver.gate()
            site.receiver.script = [Answer(gate=gate)]
            clicks = [
                site.processes.start("command", f"python manage.py replay {request_id}") for _ in range(CLICKS)
            ]
            assert [click.wait() for click in clicks] == [0] * CLICKS
            gate.open()
            running.wanted[request_id] += 1
            running.wait_until_settled()
            output = "".join(click.log.read_text() for click in clicks)
            assert sorted(re.findall(r"Replayed (\d+)", output)) == ["0"] * (CLICKS - 1) + ["1"]
            assert running.attempts(request_id) == [(1, ""), (2, "")]
