"""The processes of the web server, what they keep, and their end."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.benchmarks.figures import descendants, rss_megabytes
from tests.conftest import ingest_body, signed_headers
from tests.processes.conftest import SECRET
from tests.service import Service
from tests.waiting import WAIT_SECONDS, wait_for_end, wait_until

pytestmark = pytest.mark.processes

# As many as there are threads in a process of web.
CALLERS = 16

# Settings that are loaded no further while somebody has the pipe open for writing.
SETTINGS = "open({pipe!r}).read()\nfrom config.settings import *\n"


def test_a_web_server_told_to_stop_while_it_loads_ends(running, tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "slow_settings.py").write_text(SETTINGS.format(pipe=str(pipe)))
    web = running.begin("web", DJANGO_SETTINGS_MODULE="slow_settings", PYTHONPATH=str(tmp_path), WEB_PROCESSES="1")
    descriptor = wait_until(lambda: open_for_writing(pipe), lambda found: found is not None, running.logs)
    try:
        web.send(signal.SIGTERM)
        web.process.wait(WAIT_SECONDS)
    finally:
        os.close(descriptor)


def test_a_web_server_that_is_killed_takes_along_its_processes(running: Service):
    web = running.start("web", WEB_PROCESSES="1")
    left = set(descendants(web.pid)) - {web.pid}
    assert left
    web.process.kill()
    web.process.wait(WAIT_SECONDS)
    for pid in left:
        wait_for_end(pid)


def test_what_many_large_calls_took_is_given_back(running: Service, subscribe: Callable[..., str]):
    web = running.start("web", WEB_PROCESSES="1")
    subscription_id = subscribe("http://127.0.0.1:1024/", event_types=["large"])
    resident = partial(lambda pids: sum(map(rss_megabytes, pids)), descendants(web.pid))

    def call(size: int) -> None:
        body = ingest_body(subscription_id, "large", f'"{"x" * size}"')
        answer = requests.post(
            f"{running.url}/ingest", data=body, headers=signed_headers(body, SECRET), timeout=30
        )
        assert answer.status_code == 202

    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(call, [10] * 4 * CALLERS))
        before = resident()
        list(callers.map(call, [1_000_000] * 15 * CALLERS))
    # MB, where 240 came in. What one call took a connection may keep; that of a statement for all 16 it did keep.
    assert resident() - before < 40


def open_for_writing(pipe: Path) -> int | None:
    """Open a pipe that somebody reads from; return nothing if nobody does."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None
