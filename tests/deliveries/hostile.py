"""Receivers that behave badly: plain sockets, so that every byte is the test's own."""

import contextlib
import gzip
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator

# So long a receiver goes on dripping or holding, unless the caller hangs up or the test ends.
PATIENCE_SECONDS = 30
DRIP_SECONDS = 0.05

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
# Says that the connection will be closed: else the next call may be sent on it while it is being closed.
LAST_OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
BOMB = gzip.compress(bytes(50_000_000))


class Connection:
    """One accepted connection, as a behaviour sees it."""

    def __init__(self, listener: "Listener", stream: socket.socket, number: int) -> None:
        self.listener = listener
        self.stream = stream
        self.number = number
        self._unread = b""

    def read_request(self) -> bytes:
        """Read a whole request and note it with the listener; raise EOFError if the caller hung up."""
        head, _, self._unread = self._read_until(b"\r\n\r\n").partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(self._unread) < length:
            self._unread += self._receive()
        body, self._unread = self._unread[:length], self._unread[length:]
        request = head + b"\r\n\r\n" + body
        self.listener.note(request)
        return request

    def send(self, data: bytes) -> None:
        self.stream.sendall(data)

    def drip(self, data: bytes) -> None:
        """Send `data` again and again, a little at a time."""
        while not self.listener.is_over.wait(DRIP_SECONDS):
            self.stream.sendall(data)

    def flood(self, data: bytes) -> None:
        """Send `data` again and again, as fast as it is taken."""
        while not self.listener.is_over.is_set():
            self.stream.sendall(data)

    def hold(self) -> None:
        self.listener.is_over.wait(PATIENCE_SECONDS)

    def reset(self) -> None:
        """Close with a reset in place of an orderly end."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.stream.close()
        self.listener.note_close()

    def _read_until(self, mark: bytes) -> bytes:
        while mark not in self._unread:
            self._unread += self._receive()
        return self._unread

    def _receive(self) -> bytes:
        data = self.stream.recv(65_536)
        if not data:
            raise EOFError
        return data


Behaviour = Callable[[Connection], None]


class Listener:
    """Accepts connections and lets a behaviour loose on each, in a thread of its own."""

    def __init__(self, behaviour: Behaviour, host: str, port: int, context: ssl.SSLContext | None) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=256)
        self._behaviour = behaviour
        self._context = context
        self._changed = threading.Condition()
        self.port: int = self._socket.getsockname()[1]
        self.is_over = threading.Event()
        self.connections = 0
        self.closed = 0
        self.requests: list[bytes] = []

    def accept_all(self) -> None:
        while True:
            try:
                stream, _ = self._socket.accept()
            except OSError:
                return
            with self._changed:
                self.connections += 1
                number = self.connections
                self._changed.notify_all()
            threading.Thread(target=self._serve, args=(stream, number), daemon=True).start()

    def note(self, request: bytes) -> None:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def note_close(self) -> None:
        with self._changed:
            self.closed += 1
            self._changed.notify_all()

    def wait_for_closed(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.closed >= count, PATIENCE_SECONDS)

    def stop(self) -> None:
        self.is_over.set()
        # Closing alone does not wake a thread in accept().
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self, stream: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, EOFError), stream:
            if self._context is not None:
                stream = _shake_hands(self._context, stream)
            with stream:
                self._behaviour(Connection(self, stream, number))


def _shake_hands(context: ssl.SSLContext, stream: socket.socket) -> ssl.SSLSocket:
    """Begin TLS; when that fails, linger as web servers do, so that the caller gets to read the alert."""
    connection = context.wrap_socket(stream, server_side=True, do_handshake_on_connect=False)
    try:
        connection.do_handshake()
    except OSError:
        with socket.socket(fileno=connection.detach()) as plain:
            plain.settimeout(PATIENCE_SECONDS)
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(65_536):
                pass
        raise
    return connection


@contextlib.contextmanager
def listening(
    behaviour: Behaviour, *, host: str = "127.0.0.1", port: int = 0, context: ssl.SSLContext | None = None
) -> Iterator[Listener]:
    listener = Listener(behaviour, host, port, context)
    thread = threading.Thread(target=listener.accept_all, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        listener.stop()
        thread.join()


@contextlib.contextmanager
def listening_twice(behaviour: Behaviour) -> Iterator[dict[str, Listener]]:
    """Listen at both loopback addresses on one port, which is free at both."""
    with contextlib.ExitStack() as stack:
        listeners: dict[str, Listener] = {}
        while len(listeners) < 2:
            first = stack.enter_context(listening(behaviour))
            with contextlib.suppress(OSError):
                second = stack.enter_context(listening(behaviour, host="::1", port=first.port))
                listeners = {"127.0.0.1": first, "::1": second}
        yield listeners


@contextlib.contextmanager
def full_backlog() -> Iterator[int]:
    """A port of which the kernel answers no more connection attempts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def head(status: str, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def answers(answer: bytes) -> Behaviour:
    """Answer each request on a connection with these bytes."""

    def behave(connection: Connection) -> None:
        while True:
            connection.read_request()
            connection.send(answer)

    return behave


def answers_and_closes(answer: bytes) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.send(answer)
        connection.close()

    return behave


def answers_and_resets(answer: bytes) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.send(answer)
        connection.reset()

    return behave


def drips(begin: bytes, drop: bytes) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.send(begin)
        connection.drip(drop)

    return behave


def floods(begin: bytes, wave: bytes) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.send(begin)
        connection.flood(wave)

    return behave


def says_nothing(connection: Connection) -> None:
    connection.hold()


def closes_at_once(connection: Connection) -> None:
    connection.close()


def half_closes(connection: Connection) -> None:
    """Answer one request and end this side of the connection, but read on."""
    connection.read_request()
    connection.send(OK)
    connection.stream.shutdown(socket.SHUT_WR)
    connection.listener.note_close()
    connection.read_request()


def ends_the_second_request(end: Callable[[Connection], None]) -> Behaviour:
    """Answer the first request of the first connection, end the second one, and answer all others."""

    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.send(OK)
        if connection.number == 1:
            end(connection)
            return
        answers(OK)(connection)

    return behave


def reads_and(finish: Callable[[Connection], None]) -> Callable[[Connection], None]:
    def end(connection: Connection) -> None:
        connection.read_request()
        finish(connection)

    return end
