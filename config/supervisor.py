"""Run the Procfile's processes under honcho, and start again any that ends by itself."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import honcho.manager
from honcho.environ import expand_processes, parse_procfile
from honcho.printer import Message, Printer
from honcho.process import Popen, Process

from config import lifetimes

# `release` is a step of a deployment, not a process.
STEPS = {"release"}
RESTART_SECONDS = 1.0

# Deliveries in flight may finish before the rest is killed.
STOP_TIMEOUT_SECONDS = 65

_stopping = multiprocessing.Event()


class _RestartingProcess(Process):  # type: ignore[misc]
    """A process that is started again when it ends, as a service manager would do."""

    def run(self, events: Any = None, ignore_signals: bool = False) -> None:  # noqa: FBT001, FBT002 - honcho's signature
        # A terminal that is closed tells everybody; who is told here is the supervisor.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        lifetimes.end_with_parent(signal.SIGKILL)
        self._child_ctor = _start
        # Once in any case: whoever is to be ended has to have told its process id.
        super().run(events, ignore_signals)
        while not _stopping.wait(RESTART_SECONDS):
            super().run(events, ignore_signals)
        super()._send_message({"returncode": 0}, type="stop")

    def _send_message(self, data: Any, type: str = "line") -> None:
        if type != "stop":
            super()._send_message(data, type)
        elif not _stopping.is_set():
            super()._send_message(f"ended with status {data['returncode']}, and is started again\n")


class UnshakenPrinter(Printer):  # type: ignore[misc]
    """A printer that loses what cannot be written.

    A full disk or a closed pipe is no reason to stop. And a signal may come in the midst of a
    write: what is said of it then Python refuses with a RuntimeError.
    """

    def write(self, message: Message) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            super().write(message)


def _start(command: str, **options: Any) -> Popen:
    child = Popen(command, preexec_fn=_begin_afresh, **options)
    threading.Thread(target=_end_what_it_left, args=[child], daemon=True).start()
    return child


def _end_what_it_left(child: Popen) -> None:
    """End what a process has started, once it is gone itself: the workers of a web server go on without it."""
    child.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)


def _begin_afresh() -> None:
    """Listen to the signals that this process ignores, and end gently when it is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    lifetimes.end_with_parent(signal.SIGTERM)


class _Supervisor(honcho.manager.Manager):  # type: ignore[misc]
    """honcho's manager, which by itself ends everything as soon as one process ends."""

    def __init__(self, printer: Printer) -> None:
        super().__init__(printer)
        self._process_ctor = _RestartingProcess
        self._is_ending = False

    def terminate(self) -> None:
        """End all of them; before all are started, honcho does not know whom, and the loop calls again then."""
        # Signals come at any moment: nothing here waits for a lock that this process may hold already.
        if not self._is_ending:
            self._is_ending = True
            _stopping.set()
        if self._all_started():
            super().terminate()

    def _any_stopped(self) -> bool:
        """Return whether the loop is to end everything, and to kill what has not ended in time."""
        return self._is_ending or bool(super()._any_stopped())


def _hang_up(number: int, frame: Any) -> None:
    """End as on SIGTERM, and say nothing more: the terminal is gone."""
    _fall_silent()
    os.kill(os.getpid(), signal.SIGTERM)


def _fall_silent() -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, sys.stdout.fileno())
    os.dup2(silence, sys.stderr.fileno())


def run_procfile(procfile: Path, *, environment: dict[str, str], concurrency: dict[str, int]) -> None:
    """Run the processes of `procfile` until SIGINT, SIGTERM or SIGHUP; then end them, gently at first."""
    signal.signal(signal.SIGHUP, _hang_up)
    honcho.manager.KILL_WAIT = STOP_TIMEOUT_SECONDS
    processes = parse_procfile(procfile.read_text()).processes
    started = {name: command for name, command in processes.items() if name not in STEPS}
    supervisor = _Supervisor(UnshakenPrinter(sys.stdout))
    for process in expand_processes(started, concurrency=concurrency):
        # Without a shell between, the process that is told about is the one that does the work.
        supervisor.add_process(process.name, f"exec {process.cmd}", env=environment, cwd=str(procfile.parent))
    supervisor.loop()
    try:
        sys.stdout.flush()
    except OSError:
        _fall_silent()  # or Python would end with a failure, over what nobody reads
