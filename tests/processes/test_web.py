"""The processes of the web server, and their end."""

import os
import signal
from pathlib import Path

import pytest

from tests.waiting import WAIT_SECONDS, wait_until

pytestmark = pytest.mark.processes

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


def open_for_writing(pipe: Path) -> int | None:
    """Open a pipe that somebody reads from; return nothing if nobody does."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None
