"""A real HTTP receiver on loopback that records what arrives and answers by a script."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseServer

WAIT_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Arrival:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What to answer. `hold` is waited for first, so that a test decides when a call ends."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    hold: threading.Event | None = None


class Receiver(ThreadingHTTPServer):
    """Records arrivals; answers with each Answer of `script` in turn, then with `otherwise`."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.arrivals: list[Arrival] = []
        self.script: list[Answer] = []
        self.otherwise = Answer()
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"

    def record(self, arrival: Arrival) -> Answer:
        with self._changed:
            self.arrivals.append(arrival)
            self._changed.notify_all()
            return self.script.pop(0) if self.script else self.otherwise

    def wait_until(
        self, condition: Callable[[list[Arrival]], bool], seconds: float = WAIT_SECONDS
    ) -> list[Arrival]:
        """Wait for arrivals that fulfil `condition` and return them; fail if they do not come."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.arrivals), seconds), (
                f"only {len(self.arrivals)} calls arrived in {seconds} s"
            )
            return list(self.arrivals)

    def wait_for(self, count: int, seconds: float = WAIT_SECONDS) -> list[Arrival]:
        return self.wait_until(lambda arrivals: len(arrivals) >= count, seconds)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a caller that hangs up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.record(Arrival(path=self.path, headers=dict(self.headers.items()), body=body))
        if answer.hold is not None:
            answer.hold.wait(WAIT_SECONDS)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(server: BaseServer) -> Iterator[None]:
    """Have it serve, in a thread of its own."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


@contextmanager
def running_receiver() -> Iterator[Receiver]:
    with Receiver() as receiver, serving(receiver):
        yield receiver
