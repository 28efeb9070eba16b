"""A load generator over the service's own transport: one thread, many connections."""

import hmac
import itertools
import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from deliveries.transport import Call, Transport
from subscriptions.addresses import parse_networks

LOOPBACK = parse_networks(["127.0.0.0/8"])


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a stretch of load came to; latencies in milliseconds, of the calls themselves."""

    seconds: float
    answers: int
    refusals: int
    latencies_ms: list[int]

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds


def ingest_calls(url: str, subscription_ids: Sequence[str], *, secret: str, size: int) -> Iterator[Call]:
    """Yield signed ingest calls for one subscription after the other, for ever."""
    prepared = []
    for subscription_id in subscription_ids:
        envelope = {"subscription_id": subscription_id, "event_type": "invoice.paid", "body": {"pad": "x" * size}}
        body = json.dumps(envelope).encode()
        signature = hmac.new(secret.encode(), body, sha256).hexdigest()
        headers = ["Content-Type: application/json", f"X-Webhook-Signature: sha256={signature}"]
        prepared.append(Call(tag=None, url=f"{url}/ingest", headers=headers, body=body, timeout_seconds=30))
    return itertools.cycle(prepared)


def run(calls: Iterator[Call], *, seconds: float, connections: int, per_second: float | None = None) -> Load:
    """Make calls for `seconds` over `connections`, as fast as they are answered or at a pace."""
    transport = Transport(user_agent="benchmark", allowed_networks=LOOPBACK)
    started_at = time.monotonic()
    latencies: deque[int] = deque()
    sent = refusals = 0
    try:
        while (elapsed := time.monotonic() - started_at) < seconds or transport.in_flight:
            due = connections if per_second is None else int(elapsed * per_second) - sent
            if elapsed < seconds:
                for _ in range(min(due, connections - transport.in_flight)):
                    transport.send(next(calls))
                    sent += 1
            for finished in transport.wait(0.005):
                refusals += finished.outcome.status_code != 202
                latencies.append(finished.outcome.response_ms)
        return Load(
            seconds=time.monotonic() - started_at,
            answers=len(latencies),
            refusals=refusals,
            latencies_ms=sorted(latencies),
        )
    finally:
        transport.close()
