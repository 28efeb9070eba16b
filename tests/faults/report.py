"""Writes docs/reliability.md from what the scenarios and the soak came to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.faults.scenario import Figures
from tests.faults.site import CALL_SECONDS, LEASE_SECONDS, LOOK_SECONDS, TICK_SECONDS
from tests.faults.soak import LONGEST_ANSWER_SECONDS, PER_SECOND, REFUSED_EVERY, WORKERS, Soaked


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of one scenario: its promise, its figures if it came so far, and why it failed if it did."""

    promise: str
    seed: int
    figures: Figures | None
    failure: str | None


HEAD = """\
# Reliability, tried out

The service accepts a request by committing it to PostgreSQL, and keeps nothing else that
matters: Redis holds nudges, a worker holds leases that run out. What follows from that is
promised in the table below, and tried out by killing, freezing, emptying and cutting off
real processes and real servers. `make test` runs each scenario once, `make faults` many
times and then all of it mixed, and writes this page.

## What is checked after each scenario

- Every call that was answered 202 has an arrival with its very bytes and both signatures
  right, or its request ended `failed` with its reason.
- The attempt numbers of a request have no gaps, and no call arrived without its attempt in
  the log; one whose worker was lost is logged as `worker_lost`.
- Nothing is left waiting that was due.
- No id was answered that does not exist in the database.
- What arrived more often than it had to is at most what was in flight in the processes at
  the moment they were killed.
"""

MEANING = """\
## What the figures mean

*Arrived* counts accepted requests, not calls. *Lost* are those that neither arrived nor
ended `failed`; it has to be 0, and in a run that did not hold it counts what had not
arrived when the run was given up. *Extra* are calls beyond the one that delivered and those
that a refusal made necessary, and in brackets how many may be: a receiver that answered a
worker which then died gets the call again, with the same `webhook-id`, because nobody can
know that it was answered. Deliver once exactly, nobody can; the log tells which calls
these were. *Recovery* is the longest time from the end of a fault until a request that was
accepted before it was settled. *Answer* is the longest that an ingest call waited for one.

The times are those of this configuration, chosen to be short: calls of at most
{call} s, a lease of {lease} s, a tick of {tick} s. With the defaults, a call limit of 15 s and a
lease margin of 30 s, what a dead worker had in hand is sent again after 45 s. A worker that
waits without being woken looks for itself every {look} s, whoever else is dead.

What they do not mean: everything ran on one machine, over loopback, for minutes. Neither
power failures, nor full or lying disks, nor a split network, nor a failover to a replica
that lacks the last commits were tried. A database that loses what it has committed loses
requests with it; see docs/operations.md for what to set there. How many arrivals are extra
depends on how many calls are in flight when a worker dies, and so on how long receivers
take and how much is sent.
"""


def write(runs: Sequence[Run], soaked: Soaked | None, *, command: str, machine: str) -> str:
    """Return the page."""
    today = datetime.now(UTC).date().isoformat()
    parts = [HEAD, f"## Scenarios\n\nMeasured {today} on {machine}, with `{command}`.\n", _table(runs)]
    failed = [run for run in runs if run.failure is not None]
    if failed:
        parts.append("## What failed\n\n" + "\n".join(f"- {_sentence(run)}" for run in failed) + "\n")
    if soaked is not None:
        parts.append(_soak(soaked))
    meaning = MEANING.format(call=LEASE_SECONDS - 1, lease=LEASE_SECONDS, tick=TICK_SECONDS, look=LOOK_SECONDS)
    return "\n".join([*parts, meaning])


def _table(runs: Sequence[Run]) -> str:
    lines = [
        "| Scenario | Runs | Held | Accepted | Arrived | Extra (allowed) | Lost | Recovery, s | Answer, s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    promises = list(dict.fromkeys(run.promise for run in runs))
    lines += [_line([run for run in runs if run.promise == promise]) for promise in promises]
    return "\n".join(lines) + "\n"


def _line(runs: Sequence[Run]) -> str:
    figures = [run.figures for run in runs if run.figures is not None]
    verdicts = [one.verdict for one in figures]
    held = sum(run.failure is None for run in runs)
    name = figures[0].name if figures else runs[0].promise
    cells = [
        name,
        len(runs),
        held,
        sum(one.accepted for one in verdicts),
        sum(one.arrived for one in verdicts),
        f"{sum(one.extra_arrivals for one in verdicts)} ({sum(one.extra_bound for one in verdicts)})",
        sum(one.lost for one in verdicts),
        f"{max((one.recovery_seconds for one in figures), default=0.0):.1f}",
        f"{max((one.slowest_answer_seconds for one in figures), default=0.0):.2f}",
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _sentence(run: Run) -> str:
    name = run.promise.removeprefix("test_").replace("_", " ")
    return f"{name}, with seed {run.seed}: {run.failure}"


def _soak(soaked: Soaked) -> str:
    figures, verdict = soaked.figures, soaked.figures.verdict
    faults = ", ".join(f"{name} {count} times" for name, count in sorted(soaked.faults.items()))
    refused = f"{soaked.refused} were refused with 503, {soaked.unanswered} got another answer or none"
    text = f"""\
## Soak

{PER_SECOND} ingest calls a second at one web process and {WORKERS} workers, to a receiver that takes up to
{LONGEST_ANSWER_SECONDS} s and refuses one call in {REFUSED_EVERY}, with a fault every 5 to 10 seconds,
drawn with seed {figures.seed}: {faults}.

{verdict.accepted} calls were accepted and {refused}. Of the accepted ones {verdict.arrived} arrived,
{verdict.failed} ended `failed`, {verdict.lost} were lost. {verdict.extra_arrivals} calls arrived more often than
they had to ({verdict.extra_bound} were in flight at the kills), {verdict.lost_attempts} attempts are logged as
`worker_lost`. The longest recovery took {figures.recovery_seconds:.1f} s, the slowest answer
{figures.slowest_answer_seconds:.2f} s.
"""
    if soaked.late or soaked.circuits_opened:
        text += f"""
{soaked.late} deliveries took longer than their limit of {CALL_SECONDS} s, as happens on a busy machine, and the
circuit breaker opened {soaked.circuits_opened} times. What it held waited for its probe, 30 s and longer, and is
in the figure for recovery.
"""
    if verdict.faults:
        text += "\nWhat should not be:\n\n" + "\n".join(f"- {fault}" for fault in verdict.faults[:20]) + "\n"
    return text
