"""What some tests need and this machine may not have: without it they are left out, and pytest says so."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# Where `make test` installs what the tests of docs/receiving.md need in Node.
NODE_FOLDER = Path(__file__).parent / "receiving"


def find_browser() -> str | None:
    """Return the path of the Chromium in $CHROMIUM or on the PATH, or None."""
    given = os.environ.get("CHROMIUM")
    if given is not None:
        return shutil.which(given)
    return next((path for path in map(shutil.which, BROWSERS) if path is not None), None)


def has_packages_of_node() -> bool:
    return shutil.which("node") is not None and (NODE_FOLDER / "node_modules/standardwebhooks").is_dir()


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """What the tests with a marker need, whether it is here, and how to get it."""

    name: str
    is_here: Callable[[], bool]
    remedy: str


NEEDS = {
    "browser": Need(
        name="a browser",
        is_here=lambda: find_browser() is not None,
        remedy=f"set CHROMIUM to one, or put {', '.join(BROWSERS[:-1])} or {BROWSERS[-1]} on the PATH",
    ),
    "node": Need(
        name="Node",
        is_here=lambda: shutil.which("node") is not None,
        remedy="put node on the PATH",
    ),
    "npm": Need(
        name="the npm package standardwebhooks",
        is_here=has_packages_of_node,
        remedy="put node and npm on the PATH and run `npm ci --prefix tests/receiving`, as `make test` does",
    ),
    "openssl": Need(
        name="openssl",
        is_here=lambda: shutil.which("openssl") is not None,
        remedy="put openssl on the PATH",
    ),
}

_left_out = pytest.StashKey[dict[str, list[str]]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[_left_out] = {}
    for marker, need in NEEDS.items():
        those = [item for item in items if item.get_closest_marker(marker) is not None]
        if those and not need.is_here():
            items[:] = [item for item in items if item not in those]
            config.hook.pytest_deselected(items=those)
            config.stash[_left_out][marker] = [item.nodeid for item in those]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash.get(_left_out, {})
    if left_out:
        terminalreporter.section("left out")
    for marker, node_ids in left_out.items():
        need = NEEDS[marker]
        terminalreporter.line(
            f"{len(node_ids)} {marker} tests were left out for want of {need.name}: {need.remedy}."
        )
        for node_id in node_ids:
            terminalreporter.line(f"  {node_id}")
