"""A PostgreSQL that commits, and whose word of it is lost."""

import contextlib
import select
import socket
import socketserver
from collections.abc import Callable, Iterator

import pytest
from django.db import connection

from tests.receiver import serving


class UnsurePostgreSQL(socketserver.ThreadingTCPServer):
    """Passes on what a client and PostgreSQL tell each other, but for the answers to the first COMMITs."""

    daemon_threads = True

    def __init__(self, reach: Callable[[], socket.socket], losing: int) -> None:
        super().__init__(("127.0.0.1", 0), _Link)
        self.reach = reach
        self.losing = losing
        self.commits = 0

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Link(socketserver.BaseRequestHandler):
    server: UnsurePostgreSQL

    def handle(self) -> None:
        near, is_lost = self.request, False
        with self.server.reach() as far:
            while True:
                [end, *_], _, _ = select.select([near, far], [], [])
                data = end.recv(65_536)
                if not data or (is_lost and end is far):
                    return
                if end is near and b"COMMIT\0" in data:
                    self.server.commits += 1
                    is_lost = self.server.commits <= self.server.losing
                (far if end is near else near).sendall(data)


@contextlib.contextmanager
def only_by_way_of_one(*, losing: int = 1) -> Iterator[UnsurePostgreSQL]:
    """Run one that loses the answers to so many COMMITs, and have this thread's connection go through it."""
    database = connection.connection.info
    host, port = database.host, database.port

    def reach() -> socket.socket:
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        far = socket.socket(socket.AF_UNIX)
        far.connect(f"{host}/.s.PGSQL.{port}")
        return far

    with UnsurePostgreSQL(reach, losing) as unsure, serving(unsure), pytest.MonkeyPatch.context() as patch:
        connection.close()
        patch.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        patch.setitem(connection.settings_dict, "PORT", unsure.port)
        # It has to be able to read what it passes on.
        patch.setitem(connection.settings_dict["OPTIONS"], "sslmode", "disable")
        try:
            yield unsure
        finally:
            connection.close()
