"""The documents under test: their lines are really typed into a shell, beside a service that runs."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.service import BASE_DIR, free_port
from tests.waiting import WAIT_SECONDS, wait_for_web, wait_until

Launch = Callable[..., "Running"]


def section(text: str, title: str) -> str:
    """Return what stands between a second-level heading and the next."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


class Running:
    """A process in a group of its own, and the lines it has printed so far."""

    def __init__(self, command: list[str], *, cwd: Path, environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def wait_for_line(self, text: str, *, count: int = 1) -> list[str]:
        """Wait until `count` lines have `text` in them, and return all lines."""

        def are_there() -> bool:
            return sum(text in line for line in self.lines) >= count

        with self._changed:
            assert self._changed.wait_for(are_there, WAIT_SECONDS), f"no {text!r} in:\n" + "\n".join(self.lines)
            return list(self.lines)

    def stop(self) -> None:
        """End the process and its group, gently at first."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class Shell:
    """A bash that stays, as the newcomer's third terminal does."""

    def __init__(self, process: Running) -> None:
        self._process = process

    def run(self, lines: str) -> str:
        """Run lines and return what they printed; fail if the last of them does."""
        mark = uuid.uuid4().hex
        before = len(self._process.lines)
        self._process.write(f"{lines}\necho {mark} $?\n")
        printed = self._process.wait_for_line(mark)[before:]
        assert printed[-1] == f"{mark} 0", "\n".join([lines, *printed])
        return "\n".join(printed[:-1])


@contextmanager
def checkout() -> Iterator[tuple[Path, dict[str, str]]]:
    """Copy what a newcomer would check out, so that a `.env` here is not read; give its environment too."""
    # Not pytest's tmp_path, which is closed to the user that PostgreSQL runs as for root.
    with tempfile.TemporaryDirectory(prefix="webhooks-readme-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "checkout"
        Path(folder).chmod(0o755)
        shutil.copytree(
            BASE_DIR, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "staticfiles", "node_modules")
        )
        (copy / ".venv").symlink_to(sys.prefix)
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        yield copy, kept | {"DATA_DIR": str(Path(folder) / "data"), "PYTHONUNBUFFERED": "1"}


def free_ports(*documented: str) -> dict[str, str]:
    """Return a free port for each documented one."""
    return {port: str(free_port()) for port in documented}


def with_ports(lines: str, ports: dict[str, str]) -> str:
    """Move the documented ports to free ones; a receiver's default port becomes an option."""
    if "webhook_receiver" in lines and "--port" not in lines:
        lines = lines.replace("webhook_receiver", "webhook_receiver --port 9000")
    return re.sub(rf"\b({'|'.join(ports)})\b", lambda match: ports[match[0]], lines)


@contextmanager
def newcomers_service(ports: dict[str, str]) -> Iterator[tuple[Launch, Running]]:
    """Start what `make run` starts, in a checkout of its own; give what launches more beside it."""
    with ExitStack() as stack:
        folder, environment = stack.enter_context(checkout())

        def launch(command: list[str], **settings: str) -> Running:
            process = Running(command, cwd=folder, environment=environment | settings)
            stack.callback(process.stop)
            return process

        service = launch([".venv/bin/python", "-m", "config.up"], PORT=ports["8000"])
        service.wait_for_line("web.1 started")
        wait_for_web(f"http://127.0.0.1:{ports['8000']}", lambda: "\n".join(service.lines))
        yield launch, service


def follow(terminals: list[str], launch: Launch, url: str) -> dict[str, Any]:
    """Run block after block; between two of them, wait until the last request and operation are over."""
    shell = Shell(launch(["bash"]))
    receivers, answers, statuses = [], [], {}
    for lines in terminals:
        if "webhook_receiver" in lines:
            receivers.append(launch(["bash", "-c", "exec " + lines]))
            receivers[-1].wait_for_line("Receiving on")
            continue
        answers.append(shell.run(lines))
        if request_id := shell.run("echo $REQUEST"):
            statuses[request_id] = _when_over(f"{url}/status/request/{request_id}")
        if operation_id := shell.run("echo $OPERATION"):
            _when_over(f"{url}/operations/{operation_id}")
    return {"receivers": receivers, "answers": answers, "statuses": list(statuses.values())}


def _when_over(url: str) -> dict[str, Any]:
    """Ask for a request or an operation until it is over, as the newcomer reads and waits."""
    answer: dict[str, Any] = wait_until(
        lambda: requests.get(url, timeout=10).json(),
        lambda answer: answer["status"] not in ("pending", "running"),
        lambda: url,
    )
    return answer
