"""`make faults`: every scenario many times, then the soak; writes docs/reliability.md.

    python -m tests.faults [--times N] [--size N] [--seed N] [--soak-seconds N] [--only WORD]

A run is repeated with the seed that its line shows: --seed N --times 1 --only WORD.
"""

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from tests.faults import (
    report,
    scenario,
    test_clocks,
    test_limits,
    test_operations,
    test_postgresql,
    test_queue,
    test_redis,
    test_web,
    test_workers,
)
from tests.faults.report import Run
from tests.faults.site import Site, running_site
from tests.faults.soak import Soaked, soak
from tests.service import BASE_DIR

MODULES: tuple[ModuleType, ...] = (
    test_workers,
    test_web,
    test_redis,
    test_postgresql,
    test_queue,
    test_operations,
    test_clocks,
    test_limits,
)
LONGEST_REASON = 160

Promise = Callable[[Site, int, int], None]


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="webhooks-faults-") as name, running_site(Path(name)) as site:
        runs = [
            _run(site, promise, size=options.size, seed=seed)
            for promise in promises(options.only)
            for seed in range(options.seed, options.seed + options.times)
        ]
        soaked = None
        if options.soak_seconds:
            _say(f"soak of {options.soak_seconds:.0f} s, seed {options.seed}")
            soaked = soak(site, seconds=options.soak_seconds, seed=options.seed, say=_say)
    text = report.write(runs, soaked, command=_command(), machine=f"{os.cpu_count()} cores")
    options.output.write_text(text)
    _say(f"written to {options.output.name}")
    return int(any(run.failure for run in runs) or (soaked is not None and _is_bad(soaked)))


def promises(only: str = "") -> Iterator[Promise]:
    """Yield the scenarios, in the order of PROMISES."""
    for module in MODULES:
        for name, function in vars(module).items():
            if name.startswith("test_") and only in name:
                yield function


def _run(site: Site, promise: Promise, *, size: int, seed: int) -> Run:
    before = len(scenario.finished)
    started_at = time.monotonic()
    failure = None
    try:
        promise(site, size, seed)
    except AssertionError as error:
        failure = _reason(error)
    figures = scenario.finished[before] if len(scenario.finished) > before else None
    name = promise.__name__
    _say(f"{'FAILED' if failure else 'held':<6} {time.monotonic() - started_at:5.1f} s  seed {seed}  {name}")
    if failure:
        _say(f"       {failure}")
    return Run(promise=name, seed=seed, figures=figures, failure=failure)


def _reason(error: AssertionError) -> str:
    text = str(error).partition("\n")[0][:LONGEST_REASON]
    return text or str(traceback.extract_tb(error.__traceback__)[-1].line)


def _is_bad(soaked: Soaked) -> bool:
    return bool(soaked.figures.verdict.faults or soaked.unanswered)


def _command() -> str:
    return " ".join(["python -m tests.faults", *sys.argv[1:]])


def _say(text: str) -> None:
    print(text, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--times", type=int, default=10, help="Runs of each scenario, each with the next seed.")
    parser.add_argument("--size", type=int, default=3, help="How often a scenario does what it does in a run.")
    parser.add_argument("--seed", type=int, default=1, help="The first seed, and the soak's.")
    parser.add_argument(
        "--soak-seconds", type=float, default=900, help="How long the soak lasts; 0 leaves it out."
    )
    parser.add_argument("--only", default="", help="Only the scenarios with this word in their name.")
    parser.add_argument("--output", type=Path, default=BASE_DIR / "docs" / "reliability.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
