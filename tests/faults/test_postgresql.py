"""Nothing accepted is lost with a PostgreSQL that goes away, comes back, hangs or is cut off."""

import time

import pytest
import requests

from tests.faults.proxy import Mode
from tests.faults.receiver import Answer
from tests.faults.scenario import scenario
from tests.faults.site import LEASE_SECONDS, LOOK_SECONDS, SLACK_SECONDS, TICK_SECONDS, Site

pytestmark = pytest.mark.processes

# "No hang": the time that a client waits at most for its 202 or 503.
ANSWER_SECONDS = 5.0
# A 503 for a server that says nothing comes within two seconds, and what a busy machine adds.
REFUSAL_SECONDS = 2.9
RECOVERY_SECONDS = max(LEASE_SECONDS + TICK_SECONDS, LOOK_SECONDS)


def test_no_answer_lies_and_none_hangs_when_postgresql_is_restarted_under_load(site: Site, size: int, seed: int):
    """PostgreSQL is restarted (immediate) under load: 503 meanwhile, no hang; no id was answered that does
    not exist; web and workers reconnect by themselves."""
    with scenario(site, "PostgreSQL restarted under load", seed, recovery_seconds=RECOVERY_SECONDS) as running:
        subscription_ids = [running.subscribe() for _ in range(3)]
        with running.load(*subscription_ids, per_second=60, threads=4):
            for _ in range(size):
                running.wait_for_accepted(30)
                with running.calls_may_be_repeated():
                    site.postgresql.restart_immediately()
                running.heal()
                running.wait_for_accepted(20)
        running.wait_until_settled()
        assert {call.status for call in running.ingested} <= {202, 503}
        assert max(call.seconds for call in running.ingested) < ANSWER_SECONDS
        assert not site.processes.ended_by_themselves


def test_workers_go_on_when_postgresql_is_restarted_with_calls_in_flight(site: Site, size: int, seed: int):
    """PostgreSQL is restarted (immediate): web and workers reconnect by themselves. A call whose answer comes
    meanwhile is settled afterwards, and not sent again."""
    with scenario(site, "PostgreSQL restarted with calls in flight", seed, workers=1) as running:
        subscription_id = running.subscribe(timeout_seconds=20)
        for _ in range(size):
            gate = site.receiver.gate()
            site.receiver.script = [Answer(gate=gate)]
            [request_id] = running.accept(subscription_id)
            site.receiver.wait_for(request_id)
            site.postgresql.restart_immediately()
            running.heal()
            # Another request, so that the worker has noticed the restart before the answer comes.
            [other_id] = running.accept(subscription_id)
            site.receiver.wait_for(other_id)
            gate.open()
            running.wait_until_settled()
            assert running.attempts(request_id) == [(1, "")]
        assert not site.processes.ended_by_themselves


def test_no_answer_lies_when_the_connection_to_postgresql_is_cut_in_the_middle(site: Site, size: int, seed: int):
    """No id was answered that does not exist: also with a connection cut in the middle of a commit."""
    with scenario(site, "PostgreSQL cut off in a commit", seed) as running:
        subscription_id = running.subscribe()
        running.accept(subscription_id, 2)
        for number in range(60 * size):
            site.web_database_proxy.cut(
                after_bytes=running.random.choice([0, 1, running.random.randrange(1500)]),
                of_answers=running.random.random() < 0.5,
                times=1 + number % 3,
            )
            [call] = running.ingest(subscription_id)
            site.web_database_proxy.heal()
            assert call.status in (202, 503)
            assert call.seconds < ANSWER_SECONDS
        assert site.web_database_proxy.cuts_made > 0
        running.heal()
        # A call that got 503 may have been stored; none is stored twice.
        assert len(running.requests()) <= len(running.ingested)
        running.accept(subscription_id)


def test_web_refuses_within_seconds_while_postgresql_says_nothing(site: Site, size: int, seed: int):
    """PostgreSQL hangs: 503 meanwhile, no hang; web and workers reconnect by themselves."""
    with scenario(site, "PostgreSQL silent", seed, recovery_seconds=RECOVERY_SECONDS) as running:
        subscription_id = running.subscribe()
        running.accept(subscription_id, 2)
        for _ in range(size):
            # Each thread of web has a connection of its own, and keeps it.
            assert {_list_requests(site)[0] for _ in range(40)} == {200}
            with running.calls_may_be_repeated():
                site.web_database_proxy.set(Mode.BLACKHOLE)
                site.database_proxy.set(Mode.BLACKHOLE)
                status, seconds = _list_requests(site)
                calls = running.ingest(subscription_id, 2)
                site.web_database_proxy.heal()
                site.database_proxy.heal()
            running.heal()
            assert [status, *(call.status for call in calls)] == [503, 503, 503]
            assert max(seconds, *(call.seconds for call in calls)) < REFUSAL_SECONDS
            running.accept(subscription_id)
        # A worker that was not answered is not one that its requests may have killed.
        running.wait_until_settled()
        assert {row["status"] for row in running.requests()} == {"delivered"}


def test_web_and_workers_come_back_when_postgresql_fails_over_without_a_word(site: Site, size: int, seed: int):
    """PostgreSQL is restarted: web and workers reconnect by themselves. Here the connections of before are
    not closed, they are silent for ever."""
    with scenario(site, "PostgreSQL failed over silently", seed, recovery_seconds=RECOVERY_SECONDS) as running:
        subscription_id = running.subscribe()
        running.accept(subscription_id, 2)
        for _ in range(size):
            with running.calls_may_be_repeated():
                site.web_database_proxy.forget()
                site.database_proxy.forget()
            running.heal()
            # Each thread of web has a connection of its own to find out about.
            running.wait(lambda: running.ingest(subscription_id)[0].is_accepted)
            running.wait_until_settled(RECOVERY_SECONDS + SLACK_SECONDS)
        assert {call.status for call in running.ingested} <= {202, 503}
        assert max(call.seconds for call in running.ingested) < ANSWER_SECONDS
        assert not site.processes.ended_by_themselves


def _list_requests(site: Site) -> tuple[int, float]:
    """Ask for a list, as whoever manages does; return the status and after how many seconds it came."""
    started_at = time.monotonic()
    answer = requests.get(f"http://127.0.0.1:{site.port}/requests?limit=1", timeout=30)
    return answer.status_code, time.monotonic() - started_at
