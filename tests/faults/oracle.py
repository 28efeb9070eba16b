"""What must be true afterwards, of every scenario.

Every call that was answered 202 has an arrival with its very bytes and both signatures
right, or has ended `failed` with its reason. Attempt numbers have no gaps. No arrival is
without its attempt in the log. Nothing waits that was due, without a reason. No id was
answered that does not exist. What arrived more often than it had to is within the bound.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.faults.load import Ingested
from tests.faults.receiver import Arrival
from tests.faults.servers import Rows

LOST = "worker_lost"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that was seen: by the clients, by the receiver, in the database.

    `wanted` counts the deliveries that were asked for beyond the first, by request: the
    replays. `is_purged` says that settled requests may have been deleted.
    """

    ingested: Sequence[Ingested]
    arrivals: Sequence[Arrival]
    requests: Rows
    attempts: Rows
    extra_bound: int
    is_purged: bool = False
    wanted: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    accepted: int
    arrived: int
    extra_arrivals: int
    extra_bound: int
    lost: int
    lost_attempts: int
    failed: int
    faults: list[str]


def judge(evidence: Evidence) -> Verdict:
    """Return the figures, and a sentence for each thing that should not be."""
    rows = {str(row["id"]): row for row in evidence.requests}
    numbers: dict[str, list[dict[str, object]]] = defaultdict(list)
    for attempt in evidence.attempts:
        numbers[str(attempt["request_id"])].append(attempt)
    arrivals: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in evidence.arrivals:
        arrivals[arrival.webhook_id].append(arrival)
    accepted = [call for call in evidence.ingested if call.is_accepted]

    faults = _faults_of_arrivals(evidence, rows)
    lost = 0
    for call in accepted:
        sentences = _faults_of_accepted(call, rows, arrivals, is_purged=evidence.is_purged)
        lost += bool(sentences)
        faults += sentences
    for request_id, row in rows.items():
        faults += _faults_of_row(request_id, row, numbers[request_id], arrivals[request_id])
    extra = sum(_extra(evidence, one, found, numbers[one]) for one, found in arrivals.items())
    if extra > evidence.extra_bound:
        faults.append(f"{extra} extra arrivals, and at most {evidence.extra_bound} may be")
    return Verdict(
        accepted=len(accepted),
        arrived=sum(bool(arrivals[str(call.request_id)]) for call in accepted),
        extra_arrivals=extra,
        extra_bound=evidence.extra_bound,
        lost=lost,
        lost_attempts=sum(attempt["error"] == LOST for attempt in evidence.attempts),
        failed=sum(row["status"] == "failed" for row in evidence.requests),
        faults=faults,
    )


def _faults_of_arrivals(evidence: Evidence, rows: dict[str, dict[str, object]]) -> list[str]:
    sent = {call.digest for call in evidence.ingested}
    faults = []
    for arrival in evidence.arrivals:
        name = f"arrival {arrival.attempt_number} of {arrival.webhook_id}"
        if not arrival.is_signed:
            faults.append(f"{name} is not signed correctly")
        if arrival.digest not in sent:
            faults.append(f"{name} has a body that nobody sent")
        if arrival.webhook_id not in rows and not evidence.is_purged:
            faults.append(f"{name} belongs to no request")
    return faults


def _faults_of_accepted(
    call: Ingested, rows: dict[str, dict[str, object]], arrivals: dict[str, list[Arrival]], *, is_purged: bool
) -> list[str]:
    request_id = str(call.request_id)
    row = rows.get(request_id)
    if row is None and not is_purged:
        return [f"{request_id} was answered, and does not exist"]
    if row is not None and row["status"] == "failed":
        return [] if row["error"] else [f"{request_id} failed without a reason"]
    if not any(arrival.digest == call.digest and arrival.is_signed for arrival in arrivals[request_id]):
        return [f"{request_id} did not arrive byte for byte and signed; its row is {row}"]
    return []


def _faults_of_row(
    request_id: str, row: dict[str, object], attempts: list[dict[str, object]], arrivals: list[Arrival]
) -> list[str]:
    faults = []
    found = sorted(attempt["attempt_number"] for attempt in attempts)  # type: ignore[type-var]
    if found != list(range(1, int(str(row["attempt_count"])) + 1)):
        faults.append(f"{request_id} counts {row['attempt_count']} attempts, and its log has {found}")
    without = {arrival.attempt_number for arrival in arrivals} - set(found)  # type: ignore[operator]
    if without:
        faults.append(f"{request_id} arrived with the attempts {without}, which the log has not")
    if row["is_overdue"]:
        faults.append(f"{request_id} waits, was due at {row['next_attempt_at']}, and nothing says why")
    return faults


def _extra(evidence: Evidence, request_id: str, arrivals: list[Arrival], attempts: list[dict[str, object]]) -> int:
    """Count the arrivals beyond the one that delivered and those that a refusal made necessary."""
    refused = sum(not attempt["success"] and attempt["error"] != LOST for attempt in attempts)
    was_delivered = not attempts or any(attempt["success"] for attempt in attempts)
    return max(0, len(arrivals) - refused - was_delivered - evidence.wanted[request_id])
