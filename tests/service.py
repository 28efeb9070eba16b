"""The service's own processes, started from the Procfile as a deployment would, on loopback.

For tests of what processes do to each other, and for benchmarks. Only processes that were
started here are ever signalled, by their process group.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import environ
import psycopg
from honcho.environ import parse_procfile
from psycopg.rows import dict_row

from tests.waiting import wait_for_web

BASE_DIR = Path(__file__).resolve().parent.parent
STOP_SECONDS = 30


@dataclass
class Running:
    """One process of the Procfile, with its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        """Signal the whole process group."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait(STOP_SECONDS)

    def stop(self) -> None:
        """End it as a service manager does: SIGTERM, and SIGKILL for one that does not go."""
        if self.process.poll() is not None:
            return
        self.send(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()


@dataclass
class Service:
    """A running service: where it is, and its processes."""

    folder: Path
    environment: dict[str, str]
    port: int
    running: list[Running] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, name: str, **environment: str) -> Running:
        """Start one process of the Procfile, and wait for `web` to answer."""
        running = self.begin(name, **environment)
        if name == "web":
            wait_for_web(self.url, self.logs)
        return running

    def begin(self, name: str, **environment: str) -> Running:
        """Start one process of the Procfile, and wait for nothing."""
        command = parse_procfile((BASE_DIR / "Procfile").read_text()).processes[name]
        log = self.folder / f"{name}-{len(self.running)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                f"exec {command}",
                shell=True,
                cwd=BASE_DIR,
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = Running(name, process, log)
        self.running.append(running)
        return running

    def manage(self, *arguments: str) -> str:
        """Run a command of manage.py and return what it printed."""
        return self._run("manage.py", *arguments)

    def run_module(self, module: str) -> str:
        """Run a module with the service's settings and return what it printed."""
        return self._run("-m", module).strip()

    def _run(self, *arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, *arguments],
            cwd=BASE_DIR,
            env=self.environment | {"DJANGO_SETTINGS_MODULE": "config.settings"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def query(self, statement: str, parameters: Mapping[str, object] | None = None) -> list[dict[str, object]]:
        """Look into the database from outside."""
        with self.connect() as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def connect(self) -> psycopg.Connection[dict[str, object]]:
        return connect(self.environment["DATABASE_URL"])

    def logs(self) -> str:
        return "\n".join(f"--- {running.log.name}\n{running.log.read_text()}" for running in self.running)

    def stop(self) -> None:
        for running in reversed(self.running):
            running.stop()
        self.running.clear()


def connect(database_url: str) -> psycopg.Connection[dict[str, object]]:
    parts = environ.Env.db_url_config(database_url)
    return psycopg.connect(
        host=parts["HOST"],
        port=parts["PORT"] or None,
        user=parts["USER"],
        password=parts["PASSWORD"] or None,
        dbname=parts["NAME"],
        autocommit=True,
        row_factory=dict_row,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def service(folder: Path, *, database_url: str, redis_url: str, **settings: str) -> Iterator[Service]:
    """Make a migrated service with no process running yet; stop what was started at the end."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    port = free_port()
    environment = dict(os.environ) | {
        "PATH": path,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PYTHONUNBUFFERED": "1",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "DEBUG": "on",
    }
    made = Service(folder, environment | settings, port)
    made.manage("migrate", "--verbosity", "0")
    try:
        yield made
    finally:
        made.stop()
