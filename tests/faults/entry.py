"""Starts the service's processes as the Procfile names them, with crash points in them.

Workers and schedulers are forked from this process, which has loaded the product once: a
start costs a moment instead of seconds, so that they can be killed by the hundred. Each
has a process group of its own, and all of them end with this one. Orders come and news
go as lines of JSON over one socket, whose descriptor is the argument.
"""

import contextlib
import ctypes
import json
import os
import selectors
import shlex
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from freezegun import freeze_time

from tests.faults import crash_points

PR_SET_PDEATHSIG = 1


def main() -> None:
    folder = Path(os.environ["FAULTS_FOLDER"])
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        _load(folder)
        children: set[int] = set()
        try:
            _serve(channel, children)
        finally:
            for pid in children:
                os.killpg(pid, signal.SIGKILL)


def _load(folder: Path) -> None:
    """Load what the processes need, without opening a connection or starting a thread."""
    import django

    django.setup()
    crash_points.install(folder)
    from django_rq import workers  # noqa: F401

    from deliveries import tasks  # noqa: F401


def _serve(channel: socket.socket, children: set[int]) -> None:
    """Start what is ordered and tell what ended, until nobody is at the other end."""
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing.fileno())
    selector = selectors.DefaultSelector()
    selector.register(channel, selectors.EVENT_READ)
    selector.register(reading, selectors.EVENT_READ)
    lines = channel.makefile("rb")
    while True:
        ready = {key.fileobj for key, _ in selector.select()}
        if reading in ready:
            reading.recv(4096)
            _tell_ended(channel, children)
        if channel in ready:
            # One order at a time, and each is answered before the next is written.
            line = lines.readline()
            if not line:
                return
            pid = _start(json.loads(line))
            children.add(pid)
            _tell(channel, {"started": pid})


def _tell_ended(channel: socket.socket, children: set[int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        children.discard(pid)
        _tell(channel, {"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _tell(channel: socket.socket, news: dict[str, Any]) -> None:
    channel.sendall(json.dumps(news).encode() + b"\n")


def _start(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _become(order)
        with _clock(order["clock_seconds"]):
            status = _run(order["command"], os.environ | order["environment"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _become(order: dict[str, Any]) -> None:
    """Make this fork a process of its own: group, signals, output."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, 64)


@contextlib.contextmanager
def _clock(ahead_seconds: float) -> Iterator[None]:
    """Have this process see a clock that is so many seconds ahead; it goes on as the right one does."""
    if not ahead_seconds:
        yield
        return
    with freeze_time(datetime.now(UTC) + timedelta(seconds=ahead_seconds), tick=True):
        yield


def _run(command: str, environment: dict[str, str]) -> int:
    """Run a command of manage.py in this process, or another program in its place."""
    if not command.startswith("python manage.py "):
        os.execve("/bin/sh", ["sh", "-c", f"exec {command}"], environment)
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(shlex.split(command)[1:])
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


if __name__ == "__main__":
    main()
