"""Ingest calls as a client makes them, with everything remembered that came of them."""

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.faults.receiver import body_signature, digest_of

CLIENT_SECONDS = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingested:
    """One call: when it began, how long it took, and what was answered; status is None without an answer."""

    at: float
    seconds: float
    status: int | None
    request_id: str | None
    digest: str

    @property
    def is_accepted(self) -> bool:
        return self.status == 202


class Client:
    """Makes ingest calls one after the other, over one connection that it renews when it must."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CLIENT_SECONDS)

    def ingest(self, subscription_id: str, payload: str, *, idempotency_key: str | None = None) -> Ingested:
        raw = b'{"subscription_id": "%s", "event_type": "invoice.paid", "body": %s}'
        body = raw % (subscription_id.encode(), payload.encode())
        headers = {"Content-Type": "application/json", "X-Webhook-Signature": body_signature(body)}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        at = time.monotonic()
        try:
            self._connection.request("POST", "/ingest", body, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            status, request_id = None, None
        else:
            status = answer.status
            request_id = json.loads(content)["request_id"] if status == 202 else None
        return Ingested(
            at=at,
            seconds=time.monotonic() - at,
            status=status,
            request_id=request_id,
            digest=digest_of(payload.encode()),
        )

    def close(self) -> None:
        self._connection.close()


class Load:
    """Ingest calls at a pace, from a few threads, until stopped."""

    def __init__(
        self,
        port: int,
        *,
        subscription_ids: Sequence[str],
        payload: Callable[[], str],
        per_second: float,
        threads: int,
        note: Callable[[Ingested], None],
    ) -> None:
        self._subscription_ids = itertools.cycle(subscription_ids)
        self._payload = payload
        self._pause = threads / per_second
        self._note = note
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(port,), daemon=True) for _ in range(threads)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(CLIENT_SECONDS * 2)

    def _run(self, port: int) -> None:
        client = Client(port)
        next_at = time.monotonic()
        while not self._stopping.wait(max(0.0, next_at - time.monotonic())):
            # A call that took long is not made up for by a burst.
            next_at = max(next_at + self._pause, time.monotonic())
            self._note(client.ingest(next(self._subscription_ids), self._payload()))
        client.close()
