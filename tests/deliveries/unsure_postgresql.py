"""A PostgreSQL that commits, and whose word of it is lost."""

import contextlib
import select
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator

import psycopg


class UnsurePostgreSQL(socketserver.ThreadingTCPServer):
    """Passes on what a client and PostgreSQL tell each other, but for the answer to the first COMMIT."""

    daemon_threads = True

    def __init__(self, reach: Callable[[], socket.socket]) -> None:
        super().__init__(("127.0.0.1", 0), _Link)
        self.reach = reach
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
                    is_lost = self.server.commits == 1
                (far if end is near else near).sendall(data)


@contextlib.contextmanager
def in_front_of(database: psycopg.ConnectionInfo) -> Iterator[UnsurePostgreSQL]:
    """Run one that passes on to this database."""
    host, port = database.host, database.port

    def reach() -> socket.socket:
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        far = socket.socket(socket.AF_UNIX)
        far.connect(f"{host}/.s.PGSQL.{port}")
        return far

    with UnsurePostgreSQL(reach) as unsure:
        thread = threading.Thread(target=unsure.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield unsure
        finally:
            unsure.shutdown()
            thread.join()
