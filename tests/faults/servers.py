"""PostgreSQL and Redis of the suite's own, to be killed, stopped, emptied and started again.

Start them from the main thread: they end with the thread that started them.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import redis
from psycopg.rows import dict_row

from config import embedded

Rows = list[dict[str, object]]


class PostgreSQL:
    """Durable, so that what it has committed outlives an immediate shutdown."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = embedded.start_postgresql(folder)
        self.socket = embedded.socket_folder(folder, "postgresql").resolve() / ".s.PGSQL.5432"

    def restart_immediately(self) -> None:
        """Shut down as `pg_ctl restart -m immediate` does: every connection is dropped, nothing is saved."""
        self._server.process.send_signal(signal.SIGQUIT)
        self._server.process.wait(embedded.STOP_TIMEOUT_SECONDS)
        self._server = embedded.start_postgresql(self._folder)

    def query(self, statement: str, parameters: object = None) -> Rows:
        """Look into the database from outside, past the proxy."""
        with psycopg.connect(
            host=str(self.socket.parent),
            user=embedded.DATABASE_USER,
            dbname=embedded.DATABASE_NAME,
            autocommit=True,
            row_factory=dict_row,
        ) as connection:
            cursor = connection.execute(statement, parameters)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        self._server.stop()


class Redis:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = embedded.start_redis(folder)
        self.socket = embedded.socket_folder(folder, "redis") / "redis.sock"

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        with redis.Redis(unix_socket_path=str(self.socket), socket_timeout=10) as client:
            yield client

    def flush(self) -> None:
        with self.client() as client:
            client.flushall()

    def restart_empty(self) -> None:
        """Kill it, lose its file, start it."""
        self._server.process.kill()
        self._server.process.wait()
        for file in (self._folder / "redis").glob("appendonly*"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        self._server = embedded.start_redis(self._folder)

    def limit_memory(self, size: int) -> None:
        """Set maxmemory; 1 makes it refuse every write, 0 takes the limit away."""
        with self.client() as client:
            client.config_set("maxmemory", size)

    def freeze(self) -> None:
        os.killpg(self._server.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self._server.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        self._server.stop()
