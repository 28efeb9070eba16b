"""The limits of a subscription hold exactly, however many workers there are."""

import pytest

from tests.faults.receiver import Answer, Arrival
from tests.faults.scenario import scenario
from tests.faults.site import Site

pytestmark = pytest.mark.processes

WORKERS = 4
MAX_IN_FLIGHT = 3
CAPPED, ORDERED = 60, 15
PER_SECOND, SECONDS = 10, 4

# No call is answered sooner. Two that arrive within this time are in flight together.
ANSWER_SECONDS = 0.1

# A call may be on its way for this long, which moves the first of a window and not the last.
ON_THE_WAY_SECONDS = 1


def test_max_in_flight_rate_limit_and_ordered_hold_exactly_across_all_workers(site: Site, size: int, seed: int):
    """max_in_flight, rate_limit and ordered hold exactly, across all workers."""
    with scenario(site, "limits across four workers", seed, workers=0) as running:
        for round_number in range(size):
            # The limit of a call is long: one that was given up would be in flight at the receiver alone.
            capped, limited, ordered = (
                running.subscribe(
                    target_url=f"{site.receiver.url}/{name}/{round_number}", timeout_seconds=20, **limits
                )
                for name, limits in {
                    "capped": {"max_in_flight": MAX_IN_FLIGHT},
                    "limited": {"rate_limit": PER_SECOND},
                    "ordered": {"ordered": True},
                }.items()
            )
            site.receiver.otherwise = lambda arrival: Answer(
                delay_seconds=0 if "limited" in arrival.path else ANSWER_SECONDS
            )
            running.accept(capped, CAPPED)
            running.accept(limited, PER_SECOND * (SECONDS + 1))
            in_order = running.accept(ordered, ORDERED)
            site.processes.want(web=1, worker=WORKERS, scheduler=1)
            running.wait_until_settled()
            site.processes.want(web=1, worker=0, scheduler=1)

            assert _most_at_once(_arrivals(site, f"/capped/{round_number}")) == MAX_IN_FLIGHT
            times = [arrival.at for arrival in _arrivals(site, f"/limited/{round_number}")]
            assert times[-1] - times[0] > SECONDS - ON_THE_WAY_SECONDS
            arrivals = _arrivals(site, f"/ordered/{round_number}")
            assert [arrival.webhook_id for arrival in arrivals] == in_order
            assert _most_at_once(arrivals) == 1


def _arrivals(site: Site, path: str) -> list[Arrival]:
    return [arrival for arrival in site.receiver.arrivals if arrival.path == path]


def _most_at_once(arrivals: list[Arrival]) -> int:
    """Return how many calls were in flight together at least."""
    return max(
        sum(other.at <= one.at < other.at + ANSWER_SECONDS for other in arrivals[: number + 1])
        for number, one in enumerate(arrivals)
    )
