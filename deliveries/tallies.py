"""What a worker process counts of its deliveries, for /metrics.

In plain Python, because it happens for every delivery; the worker's heartbeat carries it to
the database now and then, from where any web process can tell it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from deliveries.attempts import Trigger
from deliveries.outcome import ErrorClass
from deliveries.settlements import Settlement

# Upper bounds in seconds. A call takes a minute at most; a request may wait for days.
RESPONSE_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0)
LAG_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)

DELIVERED = "delivered"
INITIAL = Trigger.INITIAL.value


class Histogram:
    """How many values there were up to each of some bounds, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def note(self, values: Sequence[float]) -> None:
        for value in values:
            self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += sum(values)

    def document(self) -> dict[str, Any]:
        """Return it as JSON: each bound as Prometheus writes it, with how many values are not above it."""
        names = [*map(str, self._bounds), "+Inf"]
        return {"buckets": list(zip(names, accumulate(self._counts), strict=True)), "sum": self._sum}


class Tally:
    """The attempts of one worker process since it started, by what came of them, and how long they took.

    Lag is the time from the receipt of a request to the end of its first attempt. Neither
    lag nor response time counts a call that nobody answered.
    """

    def __init__(self) -> None:
        self._attempts: dict[ErrorClass | None, int] = dict.fromkeys((None, *ErrorClass), 0)
        self._response = Histogram(RESPONSE_BOUNDS)
        self._lag = Histogram(LAG_BOUNDS)

    def note(self, settlements: Sequence[Settlement]) -> None:
        """Count attempts that have been settled."""
        for settlement in settlements:
            self._attempts[settlement.outcome.error] += 1
        # Most deliver: for these the look into the error is spared.
        answered = [each for each in settlements if each.outcome.error is None or each.outcome.is_answered]
        self._response.note([each.outcome.response_ms / 1000 for each in answered])
        self._lag.note(
            [
                (each.attempted_at - each.request.received_at).total_seconds() + each.outcome.response_ms / 1000
                for each in answered
                if each.request.trigger == INITIAL
            ]
        )

    def note_lost(self, attempts: int) -> None:
        """Count attempts of other workers that did not live to settle them."""
        self._attempts[ErrorClass.WORKER_LOST] += attempts

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        return {
            "attempts": {error or DELIVERED: count for error, count in self._attempts.items()},
            "response_seconds": self._response.document(),
            "delivery_lag_seconds": self._lag.document(),
        }
