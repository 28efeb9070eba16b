"""Wait for what other processes do."""

import os
import select
import time
from collections.abc import Callable
from typing import TypeVar

import requests

Answer = TypeVar("Answer")

WAIT_SECONDS = 60
PAUSE_SECONDS = 0.05


def wait_until(
    ask: Callable[[], Answer],
    fits: Callable[[Answer], bool],
    explain: Callable[[], str],
    *,
    seconds: float = WAIT_SECONDS,
    pause_seconds: float = PAUSE_SECONDS,
) -> Answer:
    """Ask until the answer fits and return it; fail with the last one, and what `explain` tells, if none does.

    For what nobody signals: rows, files, what another process answers.
    """
    deadline = time.monotonic() + seconds
    while not fits(answer := ask()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {answer!r}\n{explain()}"
        time.sleep(pause_seconds)
    return answer


def wait_for_web(url: str, explain: Callable[[], str]) -> None:
    """Wait until the service at this URL answers."""

    def is_healthy() -> bool:
        try:
            return bool(requests.get(f"{url}/health", timeout=10).json() == {"status": "ok"})
        except requests.RequestException:
            return False

    wait_until(is_healthy, bool, explain)


def wait_for_end(pid: int) -> None:
    """Wait until a process has ended, whoever started it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # It can be read from when the process has ended.
        assert select.select([descriptor], [], [], WAIT_SECONDS)[0], f"{pid} does not end"
    finally:
        os.close(descriptor)
