"""The service's processes, and a loop that plays the service manager.

What runs is what is wanted of each name in the Procfile: a process that ends is started
again, as the Procfile's runner does. Only processes that were started here are signalled.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from honcho.environ import parse_procfile

from tests.service import BASE_DIR

RESTART_SECONDS = 0.2
WAIT_SECONDS = 60

APPLICATION = "config.wsgi:application"
WITH_CRASH_POINTS = "tests.faults.web:application"


@dataclass(eq=False)
class Started:
    """One process, by the id that is also its process group's."""

    name: str
    pid: int
    log: Path
    ended: threading.Event = field(default_factory=threading.Event)
    status: int | None = None
    was_signalled: bool = False

    @property
    def is_running(self) -> bool:
        return not self.ended.is_set()

    def send(self, number: signal.Signals) -> None:
        """Signal its process group, unless it has ended."""
        if self.is_running:
            self.was_signalled = True
            os.killpg(self.pid, number)

    def wait(self, seconds: float = WAIT_SECONDS) -> int | None:
        assert self.ended.wait(seconds), f"{self.name} did not end in {seconds} s"
        return self.status


class Manager:
    """Keeps as many processes running as are wanted."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._commands = parse_procfile((BASE_DIR / "Procfile").read_text()).processes
        self._changed = threading.Condition()
        self._order_lock = threading.Lock()
        self._all: dict[int, Started] = {}
        self._answers: list[int] = []
        self._orphans: dict[int, int] = {}
        self._wanted: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()
        self.environments: dict[str, dict[str, str]] = {}
        self._clock_seconds = 0.0
        # Names of the processes that ended without having been told to.
        self.ended_by_themselves: list[str] = []
        self._is_closing = False
        self._is_over = False
        ours, theirs = socket.socketpair()
        with theirs:
            self._entry = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.entry", str(theirs.fileno())],
                cwd=BASE_DIR,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._channel = ours
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._listen, self._manage)]
        for thread in self._threads:
            thread.start()

    def want(self, **counts: int) -> None:
        """Have exactly so many processes of each name running; those too many are told to stop."""
        with self._changed:
            self._wanted = Counter(counts)
            surplus = [one for name in self._names() for one in self._running(name)[counts.get(name, 0) :]]
            self._changed.notify_all()
        for one in surplus:
            one.send(signal.SIGTERM)
            one.send(signal.SIGCONT)
        for one in surplus:
            try:
                one.wait(10)
            except AssertionError:
                one.send(signal.SIGKILL)
        self.wait_until(lambda: all(len(self._running(name)) == count for name, count in counts.items()))

    @contextlib.contextmanager
    def wrong_clock(self, ahead: timedelta) -> Iterator[None]:
        """Give commands of manage.py that are started within the block a clock that is so far ahead."""
        self._clock_seconds = ahead.total_seconds()
        try:
            yield
        finally:
            self._clock_seconds = 0.0

    def running(self, name: str) -> list[Started]:
        with self._changed:
            return self._running(name)

    def run(self, command: str, seconds: float = WAIT_SECONDS) -> str:
        """Run one command to its end and return what it printed; fail if it failed."""
        started = self.start("command", f"python manage.py {command}")
        status = started.wait(seconds)
        assert status == 0, started.log.read_text()
        return started.log.read_text()

    def start(self, name: str, command: str | None = None) -> Started:
        """Start a process, beside those that are wanted if it has a command of its own."""
        command = (command or self._commands[name]).replace(APPLICATION, WITH_CRASH_POINTS)
        with self._changed:
            self._numbers[name] += 1
            log = self._folder / f"{name}-{self._numbers[name]}.log"
        order = {
            "command": command,
            "log": str(log),
            "environment": self.environments.get(name, {}),
            "clock_seconds": self._clock_seconds,
        }
        with self._order_lock:
            self._channel.sendall(json.dumps(order).encode() + b"\n")
            self.wait_until(lambda: bool(self._answers))
            with self._changed:
                started = Started(name, self._answers.pop(), log)
                self._all[started.pid] = started
                if started.pid in self._orphans:
                    self._note_end(started.pid, self._orphans.pop(started.pid))
                self._changed.notify_all()
        return started

    def wait_until(self, condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
        with self._changed:
            came = self._changed.wait_for(lambda: self._is_over or condition(), seconds)
            assert not self._is_over, "the process that starts the others has ended"
            assert came, f"not in {seconds} s: {self._wanted}, {self._all}"

    def logs(self) -> str:
        """Return the last words of the processes that run."""
        with self._changed:
            logs = [one.log for one in self._all.values()]
        return "\n".join(f"--- {log.name}\n{log.read_text()[-1500:]}" for log in logs)

    def close(self) -> None:
        if not self._is_over:
            self.want()
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._entry.wait(WAIT_SECONDS)
        for thread in self._threads:
            thread.join(WAIT_SECONDS)
        self._channel.close()

    def _names(self) -> set[str]:
        return {one.name for one in self._all.values() if one.name in self._commands}

    def _running(self, name: str) -> list[Started]:
        return [one for one in self._all.values() if one.name == name and one.is_running]

    def _listen(self) -> None:
        """Take in what the entry process tells: pids of what was started, and what ended."""
        with self._channel.makefile("rb") as lines:
            for line in lines:
                news = json.loads(line)
                with self._changed:
                    if "started" in news:
                        self._answers.append(news["started"])
                    elif news["ended"] in self._all:
                        self._note_end(news["ended"], news["status"])
                    else:
                        self._orphans[news["ended"]] = news["status"]
                    self._changed.notify_all()
        with self._changed:
            self._is_over = self._is_closing = True
            self._changed.notify_all()

    def _note_end(self, pid: int, status: int) -> None:
        ended = self._all.pop(pid)
        ended.status = status
        ended.ended.set()
        if not ended.was_signalled and ended.name in self._wanted:
            self.ended_by_themselves.append(ended.name)

    def _manage(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing or self._missing() is not None)
                if self._is_closing:
                    return
                name = self._missing()
            if name is not None:
                self.start(name)
                if self._numbers[name] > 1:
                    self._pause()

    def _pause(self) -> None:
        """Let what ends at once not be started at once again; at the end nobody waits for this."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing, RESTART_SECONDS)

    def _missing(self) -> str | None:
        return next((name for name, count in self._wanted.items() if len(self._running(name)) < count), None)
