"""Figures: what processes take, and how what was measured is told."""

import os
import statistics
from pathlib import Path

from tests.service import Running


def show(name: str, figure: str, rounds: list[float], detail: str) -> None:
    each = f" (rounds: {', '.join(f'{value:,.0f}' for value in rounds)})" if rounds else ""
    print(f"{name:<15} {figure}{each}; {detail}", flush=True)


def median(values: list[float]) -> float:
    return statistics.median(values)


def percentiles(sorted_ms: list[int]) -> str:
    def at(share: float) -> int:
        return sorted_ms[min(len(sorted_ms) - 1, int(len(sorted_ms) * share))]

    return f"p50 {at(0.5)}, p99 {at(0.99)} ms"


def descendants(pid: int) -> list[int]:
    """Return the processes below `pid`."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [grandchild for child in children for grandchild in descendants(child)]


def cpu_seconds(running: Running) -> float:
    fields = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_megabytes(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
