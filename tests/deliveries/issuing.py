"""Token endpoints, and calls that need a token of theirs."""

import json
import threading
from dataclasses import dataclass, field

from deliveries.courier import Courier
from deliveries.outcome import Outcome
from deliveries.transport import Call
from subscriptions.auth import ClientCredentials
from tests.deliveries.calling import LONG_SECONDS
from tests.deliveries.hostile import Connection, Listener

NO_TOKEN = "No access token could be fetched from the token URL. "


def answer(status: str, document: object, *lines: str) -> bytes:
    return raw_answer(status, json.dumps(document).encode(), *lines)


def raw_answer(status: str, body: bytes, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def granted(token: str = "token-1", **more: object) -> bytes:
    return answer("200 OK", {"access_token": token, "token_type": "Bearer", "expires_in": 3600} | more)


@dataclass
class Tokens:
    """A token endpoint that gives out token-1, token-2 and so on."""

    more: dict[str, object] = field(default_factory=dict)
    may_answer: threading.Event = field(default_factory=threading.Event)
    given: int = 0

    def __call__(self, connection: Connection) -> None:
        while True:
            connection.read_request()
            self.may_answer.wait(LONG_SECONDS)
            self.given += 1
            connection.send(granted(f"token-{self.given}", **self.more))


def credentials_of(listener: Listener, **fields: str) -> ClientCredentials:
    fields = {"client_id": "id", "client_secret": "top secret"} | fields
    return ClientCredentials(token_url=f"http://127.0.0.1:{listener.port}/token", **fields)


def a_call(receiver: Listener, credentials: ClientCredentials | None, tag: str = "", **fields: object) -> Call:
    usual = {"headers": ["X-Tag: x"], "body": b"{}", "timeout_seconds": LONG_SECONDS}
    url = f"http://127.0.0.1:{receiver.port}/hook"
    return Call(tag=tag, url=url, credentials=credentials, **(usual | fields))


def outcomes(courier: Courier, *calls: Call) -> dict[str, Outcome]:
    for call in calls:
        courier.send(call)
    finished = []
    while courier.in_flight:
        finished += courier.wait(0.05)
    assert len(finished) == len(calls)
    return {one.call.tag: one.outcome for one in finished}


def outcome(courier: Courier, call: Call) -> Outcome:
    return outcomes(courier, call)[call.tag]
