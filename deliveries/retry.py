"""When to try again, if at all: a pure decision over one outcome."""

from collections.abc import Sequence
from dataclasses import dataclass

from deliveries.outcome import Outcome

# Jitter only adds, so that a retry is never earlier than the schedule promises.
MAX_JITTER = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What becomes of a request after an attempt: delivered, failed, or due again after a delay."""

    delivered: bool
    delay_seconds: float | None = None

    @property
    def retries(self) -> bool:
        return self.delay_seconds is not None


def next_attempt(outcome: Outcome, schedule: Sequence[int], *, failure_count: int, jitter: float) -> Decision:
    """Decide what follows `outcome`.

    `schedule` holds the seconds to wait after each failure, `failure_count` the failures
    before this one in the same run, `jitter` a random number from 0 to 1.
    """
    if outcome.is_success:
        return Decision(delivered=True)
    if failure_count >= len(schedule):
        return Decision(delivered=False)
    return Decision(delivered=False, delay_seconds=schedule[failure_count] * (1 + MAX_JITTER * jitter))
