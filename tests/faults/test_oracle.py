"""The oracle finds what it is there to find."""

from dataclasses import replace

import pytest

from tests.faults.load import Ingested
from tests.faults.oracle import Evidence, judge
from tests.faults.receiver import Arrival, digest_of

DIGEST = digest_of(b"{}")
CALL = Ingested(at=1.0, seconds=0.1, status=202, request_id="a", digest=DIGEST)
ARRIVAL = Arrival(at=2.0, path="/hook", webhook_id="a", attempt_number=1, digest=DIGEST, is_signed=True)
ROW = {
    "id": "a",
    "status": "delivered",
    "error": "",
    "attempt_count": 1,
    "is_overdue": False,
    "next_attempt_at": None,
}
ATTEMPT = {"request_id": "a", "attempt_number": 1, "success": True, "error": ""}
GOOD = Evidence(ingested=[CALL], arrivals=[ARRIVAL], requests=[ROW], attempts=[ATTEMPT], extra_bound=0)


def test_it_finds_nothing_where_nothing_is_wrong():
    verdict = judge(GOOD)
    assert (verdict.accepted, verdict.arrived, verdict.extra_arrivals, verdict.lost) == (1, 1, 0, 0)
    assert verdict.faults == []


def test_it_counts_what_did_not_arrive():
    verdict = judge(replace(GOOD, arrivals=[]))
    assert (verdict.accepted, verdict.arrived, verdict.lost) == (1, 0, 1)


def test_it_takes_a_failure_with_a_reason_for_an_end():
    ended = replace(
        GOOD,
        arrivals=[],
        requests=[ROW | {"status": "failed", "error": "worker_lost"}],
        attempts=[ATTEMPT | {"success": False, "error": "worker_lost"}],
    )
    verdict = judge(ended)
    assert verdict.faults == []
    assert (verdict.accepted, verdict.arrived, verdict.failed, verdict.lost) == (1, 0, 1, 0)


@pytest.mark.parametrize(
    ("evidence", "fault"),
    [
        (replace(GOOD, arrivals=[]), "did not arrive"),
        (replace(GOOD, arrivals=[replace(ARRIVAL, digest="other")]), "a body that nobody sent"),
        (replace(GOOD, arrivals=[replace(ARRIVAL, is_signed=False)]), "not signed"),
        (replace(GOOD, arrivals=[ARRIVAL, replace(ARRIVAL, webhook_id="b")]), "belongs to no request"),
        (replace(GOOD, requests=[], attempts=[]), "answered, and does not exist"),
        (replace(GOOD, requests=[ROW | {"status": "failed"}]), "failed without a reason"),
        (replace(GOOD, requests=[ROW | {"attempt_count": 2}]), "its log has"),
        (replace(GOOD, arrivals=[ARRIVAL, replace(ARRIVAL, attempt_number=2)]), "which the log has not"),
        (replace(GOOD, requests=[ROW | {"is_overdue": True}]), "nothing says why"),
        (replace(GOOD, arrivals=[ARRIVAL, ARRIVAL]), "extra arrivals"),
    ],
)
def test_it_finds_what_is_wrong(evidence: Evidence, fault: str):
    assert fault in "; ".join(judge(evidence).faults)


def test_a_second_call_is_extra_unless_the_first_was_refused():
    twice = [ARRIVAL, replace(ARRIVAL, attempt_number=2)]
    rows = [ROW | {"attempt_count": 2}]
    first = ATTEMPT | {"success": False, "error": "http_5xx"}
    second = ATTEMPT | {"attempt_number": 2}
    refused = replace(GOOD, arrivals=twice, requests=rows, attempts=[first, second])
    assert judge(refused).extra_arrivals == 0
    lost = replace(refused, attempts=[first | {"error": "worker_lost"}, second])
    assert judge(lost).extra_arrivals == 1
