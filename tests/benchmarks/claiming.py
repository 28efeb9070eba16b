"""How long claims of 500 take of what is due: run by the benchmark, on its own database."""

import statistics
import time

import django

django.setup()

from deliveries import claims  # noqa: E402 - the apps have to be loaded first

CLAIMS = 5


def claim_times(count: int) -> str:
    after = None
    times, sizes = [], []
    for _ in range(count):
        started_at = time.perf_counter()
        claim = claims.claim(500, after=after)
        times.append((time.perf_counter() - started_at) * 1000)
        sizes.append(len(claim.requests))
        after = claim.stopped_after
    size = statistics.median(sizes)
    return f"median {statistics.median(times):.0f}, worst {max(times):.0f} ms for {size:.0f} requests"


if __name__ == "__main__":
    print(claim_times(CLAIMS))
