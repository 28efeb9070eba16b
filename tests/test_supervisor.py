"""`make run`'s supervisor: whatever ends it, nothing that it started goes on."""

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from honcho.printer import Message

from config.supervisor import UnshakenPrinter
from tests.service import BASE_DIR
from tests.waiting import WAIT_SECONDS, wait_for_end, wait_until

pytestmark = pytest.mark.processes

PROCFILE = "sleeper: sleep 600\nrelease: false\n"
PROGRAM = (
    "import os, sys; from pathlib import Path; from config import supervisor\n"
    "supervisor.run_procfile(Path(sys.argv[1]), environment=dict(os.environ), concurrency={})"
)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "Procfile").write_text(PROCFILE)
    with running(tmp_path / "Procfile") as process:
        yield process


@contextmanager
def running(procfile: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a Procfile in a session of its own, as in a terminal."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(procfile)],
        cwd=BASE_DIR,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def wait_for_start(supervisor: subprocess.Popen[str]) -> Callable[[], int]:
    """Read on until the sleeper is started, and return the process id that is told."""
    return partial(read_id, supervisor, "started")


def read_id(supervisor: subprocess.Popen[str], word: str) -> int:
    """Read on until a process id is told with this word, and return it."""
    assert supervisor.stdout is not None
    for line in supervisor.stdout:
        if found := re.search(rf"\b{word} (?:\(pid=)?(\d+)", line):
            return int(found[1])
    raise AssertionError("it ended")


def test_the_process_that_is_told_about_is_the_one_that_does_the_work(wait_for_start):
    pid = wait_for_start()
    command = Path(f"/proc/{pid}/cmdline")
    wait_until(command.read_bytes, lambda words: words == b"sleep\x00600\x00", lambda: str(command))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_all_of_it(supervisor, wait_for_start, number):
    pid = wait_for_start()
    os.killpg(supervisor.pid, number)
    supervisor.communicate(timeout=WAIT_SECONDS)
    wait_for_end(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_in_the_midst_of_the_start_ends_all_of_it(tmp_path, number):
    names = [f"sleeper{index}" for index in range(8)]
    (tmp_path / "Procfile").write_text("".join(f"{name}: sleep 600\n" for name in names))
    with running(tmp_path / "Procfile") as supervisor:
        assert supervisor.stdout is not None
        first = supervisor.stdout.readline()
        os.killpg(supervisor.pid, number)
        output, _ = supervisor.communicate(timeout=WAIT_SECONDS)
    assert "Traceback" not in output
    for pid in re.findall(r"started \(pid=(\d+)\)", first + output):
        wait_for_end(int(pid))


def test_what_is_said_of_a_signal_in_the_midst_of_a_write_is_no_hindrance():
    class Busy(io.StringIO):
        """Standard output while it is being written to, as the handler of a signal finds it."""

        def write(self, text: str) -> int:
            raise RuntimeError("reentrant call inside <_io.BufferedWriter>")

    line = Message(type="line", data="SIGTERM received", time=datetime.now(UTC), name="system", colour=None)
    UnshakenPrinter(Busy()).write(line)


def test_a_supervisor_that_is_killed_leaves_nothing_behind(supervisor, wait_for_start):
    pid = wait_for_start()
    supervisor.kill()
    supervisor.communicate(timeout=WAIT_SECONDS)
    wait_for_end(pid)


def test_a_process_is_started_again_and_can_then_be_ended(supervisor, wait_for_start):
    first = wait_for_start()
    os.kill(first, signal.SIGKILL)
    second = wait_for_start()
    supervisor.send_signal(signal.SIGTERM)
    supervisor.communicate(timeout=WAIT_SECONDS)
    wait_for_end(second)


def test_a_process_that_is_killed_takes_along_what_it_started(tmp_path):
    (tmp_path / "Procfile").write_text("server: sh -c 'sleep 600 & echo worker $!; exec sleep 600'\n")
    with running(tmp_path / "Procfile") as supervisor:
        server, worker = read_id(supervisor, "started"), read_id(supervisor, "worker")
        os.kill(server, signal.SIGKILL)
        wait_for_end(worker)
        assert read_id(supervisor, "started") != server
        worker = read_id(supervisor, "worker")
        supervisor.send_signal(signal.SIGTERM)
        supervisor.communicate(timeout=WAIT_SECONDS)
        wait_for_end(worker)


def test_output_that_nobody_reads_is_no_hindrance(supervisor, wait_for_start):
    first = wait_for_start()
    supervisor.stdout.close()
    os.kill(first, signal.SIGKILL)
    wait_for_end(first)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(timeout=WAIT_SECONDS) == 0
