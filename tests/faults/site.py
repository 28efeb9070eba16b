"""The service with everything around it that can be made to fail, and one scenario at a time on it.

clients -> web -> proxy -> PostgreSQL      (a proxy of web's own)
           web, workers, scheduler -> proxy -> Redis
           workers, scheduler -> proxy -> PostgreSQL
           workers -> receiver
"""

import base64
import contextlib
import http.client
import os
import socket
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from tests.faults.crash_points import CrashPoints
from tests.faults.loop import LoopThread
from tests.faults.processes import Manager
from tests.faults.proxy import Proxy
from tests.faults.receiver import Receiver
from tests.faults.servers import PostgreSQL, Redis
from tests.waiting import wait_until

LEASE_MARGIN_SECONDS = 1
CALL_SECONDS = 1
TICK_SECONDS = 1
LEASE_SECONDS = CALL_SECONDS + LEASE_MARGIN_SECONDS

# An idle worker looks for itself this often; see deliveries/worker.py.
LOOK_SECONDS = 5

# What starting a process and a busy machine may add to a time that is promised.
SLACK_SECONDS = 8

TABLES = "delivery_attempts, webhook_requests, events, subscriptions"


class Site:
    """All of it; made once, used for one scenario after the other."""

    def __init__(self, folder: Path, cleanup: contextlib.ExitStack) -> None:
        # As root, PostgreSQL runs as another user, who has to get in.
        folder.chmod(0o755)
        self.folder = folder
        # Whether a scenario failed, so that the next one begins with new processes.
        self.is_suspect = False
        self.thread = LoopThread()
        cleanup.callback(self.thread.stop)
        self.postgresql = PostgreSQL(folder)
        cleanup.callback(self.postgresql.stop)
        self.redis = Redis(folder)
        cleanup.callback(self.redis.stop)
        self.receiver = Receiver(self.thread)
        cleanup.callback(self.receiver.close)
        self.redis_proxy = Proxy(self.thread, self.redis.socket)
        self.database_proxy = Proxy(self.thread, self.postgresql.socket)
        self.web_database_proxy = Proxy(self.thread, self.postgresql.socket)
        for proxy in self.proxies:
            cleanup.callback(proxy.close)
        self.crash_points = CrashPoints(folder / "crash-points")
        self.port = free_port()
        logs = folder / "logs"
        logs.mkdir()
        self.processes = Manager(logs, self._environment())
        cleanup.callback(self.processes.close)
        self.processes.environments["web"] = {"DATABASE_URL": database_url(self.web_database_proxy)}
        self.processes.run("migrate --verbosity 0")

    @property
    def proxies(self) -> tuple[Proxy, ...]:
        return (self.redis_proxy, self.database_proxy, self.web_database_proxy)

    def reset(self, **processes: int) -> None:
        """Make everything whole and empty, with these processes running."""
        self.crash_points.disarm()
        self.receiver.forget()
        for proxy in self.proxies:
            proxy.heal()
            proxy.reset_forgotten()
        self.redis.thaw()
        self.redis.limit_memory(0)
        if self.is_suspect:
            self.processes.want()
            self.is_suspect = False
        self.processes.want(**processes)
        self.postgresql.query(f"TRUNCATE {TABLES}")
        self.receiver.forget()
        self.processes.ended_by_themselves.clear()
        if processes.get("web"):
            self.wait_for_web()

    def wait_for_web(self, seconds: float = 60) -> None:
        """Return when web answers: one that was just killed may take connections for a moment longer."""
        wait_until(self._web_answers, bool, self.processes.logs, seconds=seconds)

    def _web_answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", "/health")
            return connection.getresponse().status == HTTPStatus.OK
        return False

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "DJANGO"))}
        return inherited | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "PYTHONUNBUFFERED": "1",
            "TZ": "UTC",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "WEB_PROCESSES": "1",
            "DATABASE_URL": database_url(self.database_proxy),
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_proxy.port}/0",
            "DEBUG": "on",
            "SECRET_KEY": "of the fault tests, and long enough to be accepted by checks",
            "SECRET_KEYS": base64.b64encode(bytes(32)).decode(),
            "DATA_DIR": str(self.folder),
            "LOG_LEVEL": "WARNING",
            "LEASE_MARGIN_SECONDS": str(LEASE_MARGIN_SECONDS),
            "TICK_SECONDS": str(TICK_SECONDS),
            "FAULTS_FOLDER": str(self.folder / "crash-points"),
        }


def database_url(proxy: Proxy) -> str:
    return f"postgres://webhooks@127.0.0.1:{proxy.port}/webhooks"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    with contextlib.ExitStack() as cleanup:
        site = Site(folder, cleanup)
        yield site
        site.receiver.forget()
        site.redis.thaw()
