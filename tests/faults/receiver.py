"""A receiver that records and verifies every call, and answers as it was told.

Signatures are checked by other code than the service's: the `standardwebhooks` package,
and an HMAC made here.
"""

import asyncio
import hashlib
import hmac
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.faults.loop import LoopThread

SECRET = "whsec_dGhlIHNlY3JldCBvZiB0aGUgZmF1bHQgdGVzdHMhIQ=="
KEY = b"the secret of the fault tests!!"
WAIT_SECONDS = 40

LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """One call that came; `at` is on this machine's monotonic clock."""

    at: float
    path: str
    webhook_id: str
    attempt_number: int
    digest: str
    is_signed: bool


class Gate:
    """Keeps answers back until it is opened."""

    def __init__(self, thread: LoopThread) -> None:
        self._thread = thread
        self.event = asyncio.Event()

    def open(self) -> None:
        self._thread.call(self.event.set)


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int = 200
    gate: Gate | None = None
    delay_seconds: float = 0.0


class Receiver:
    """Answers each call with the next Answer of `script`, then with what `otherwise` says of the arrival."""

    def __init__(self, thread: LoopThread) -> None:
        self._thread = thread
        self._changed = threading.Condition()
        self.arrivals: list[Arrival] = []
        self.script: list[Answer] = []
        self.otherwise: Callable[[Arrival], Answer] = lambda arrival: Answer()
        self._gates: list[Gate] = []
        self._server = thread.run(
            thread.loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1024)  # type: ignore[arg-type]
        )
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def gate(self) -> Gate:
        made = Gate(self._thread)
        self._gates.append(made)
        return made

    def forget(self) -> None:
        """Begin afresh, with every gate open."""
        for gate in self._gates:
            gate.open()
        self._gates.clear()
        with self._changed:
            self.arrivals = []
            self.script = []
            self.otherwise = lambda arrival: Answer()

    def wait_until(
        self, condition: Callable[[list[Arrival]], bool], seconds: float = WAIT_SECONDS
    ) -> list[Arrival]:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.arrivals), seconds), (
                f"{len(self.arrivals)} calls arrived in {seconds} s, and not the one that was waited for"
            )
            return list(self.arrivals)

    def wait_for(self, request_id: str) -> None:
        """Wait until this request has arrived."""
        self.wait_until(lambda arrivals: any(arrival.webhook_id == request_id for arrival in arrivals))

    def record(self, arrival: Arrival) -> Answer:
        with self._changed:
            self.arrivals.append(arrival)
            self._changed.notify_all()
            return self.script.pop(0) if self.script else self.otherwise(arrival)

    def close(self) -> None:
        self._thread.call(self._server.close)


class _Connection(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self._buffer, 0, end)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < total:
                return
            head, body = self._buffer[:end], self._buffer[end + 4 : total]
            self._buffer = self._buffer[total:]
            answer = self._receiver.record(_arrival(head.decode("latin-1"), body))
            if answer.gate is None and not answer.delay_seconds:
                self._answer(answer.status)
            else:
                asyncio.get_running_loop().create_task(self._answer_later(answer))

    async def _answer_later(self, answer: Answer) -> None:
        if answer.gate is not None:
            await answer.gate.event.wait()
        await asyncio.sleep(answer.delay_seconds)
        self._answer(answer.status)

    def _answer(self, status: int) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 %d Answer\r\nContent-Length: 2\r\n\r\nok" % status)


def _arrival(head: str, body: bytes) -> Arrival:
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Arrival(
        at=time.monotonic(),
        path=first.split()[1],
        webhook_id=headers.get("webhook-id", ""),
        attempt_number=int(headers.get("x-webhook-attempt", "0")),
        digest=digest_of(body),
        is_signed=_is_signed(headers, body),
    )


def _is_signed(headers: dict[str, str], body: bytes) -> bool:
    try:
        Webhook(SECRET).verify(body, headers)
    except WebhookVerificationError:
        return False
    return hmac.compare_digest(headers.get("x-webhook-signature", ""), body_signature(body))


def body_signature(body: bytes) -> str:
    return "sha256=" + hmac.digest(KEY, body, "sha256").hex()


def digest_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
