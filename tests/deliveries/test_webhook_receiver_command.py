"""manage.py webhook_receiver: a process of its own that is really called."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from django.core.management import CommandError, call_command

from subscriptions import signing

BASE_DIR = Path(__file__).resolve().parent.parent.parent
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = signing.key_of(SECRET)
MESSAGE_ID = "0198c5b6-3b7e-7bd1-8f0e-5a8d7a0a1b2c"
BODY = b'{"n": 1.0}'
BAD_PORT = "Error: argument --port: a port is a number from 0 to 65535"

pytestmark = pytest.mark.processes


@dataclass(frozen=True, kw_only=True)
class Process:
    """A running receiver: where it is, and what it says."""

    process: subprocess.Popen[str]
    url: str

    def post(self, body: bytes = BODY, headers: Mapping[str, str] | None = None) -> requests.Response:
        return requests.post(f"{self.url}hook?x=1", body, headers=headers, timeout=30)

    def printed(self) -> list[str]:
        """Return the lines of the next call that it prints: two blocks, each followed by an empty line."""
        lines: list[str] = []
        while lines.count("") < 2:
            line = self.process.stdout.readline()
            assert line, "the receiver has ended"
            lines.append(line.rstrip("\n"))
        return lines


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Start a receiver on a free port; it is stopped as a person would, with Ctrl-C."""
    processes = []

    def start(*arguments: str) -> Process:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "webhook_receiver", "--port", "0", *arguments],
            cwd=BASE_DIR,
            env=os.environ | {"PYTHONWARNINGS": "error"},
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        first = process.stdout.readline()
        match = re.fullmatch(r"Receiving on (http://(?:127\.0\.0\.1|\[::1\]):\d+/) \(Ctrl-C ends it\)\n", first)
        assert match, first
        return Process(process=process, url=match[1])

    yield start
    for process in processes:
        process.send_signal(signal.SIGINT)
    try:
        assert [process.wait(30) for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()


def signed(body: bytes = BODY, *, key: bytes = KEY, timestamp: int | None = None) -> dict[str, str]:
    """Return the headers that a delivery has."""
    timestamp = int(time.time()) if timestamp is None else timestamp
    return {
        "Content-Type": "application/json",
        "webhook-id": MESSAGE_ID,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signing.sign_standard([key], message_id=MESSAGE_ID, timestamp=timestamp, body=body),
        "X-Webhook-Signature": signing.sign_body(key, body),
    }


def verdict(lines: list[str]) -> str:
    [line] = [line for line in lines if line.startswith("  signatures: ")]
    return line.removeprefix("  signatures: ")


def test_it_prints_a_call_and_answers_200(start):
    receiver = start()
    response = receiver.post(headers={"Content-Type": "application/json", "X-Test": "yes"})
    assert (response.status_code, response.text) == (200, "received\n")

    lines = receiver.printed()
    assert re.fullmatch(r"\d\d:\d\d:\d\d POST /hook\?x=1  -> 200", lines[0])
    assert {"  Content-Type: application/json", "  X-Test: yes", "  Content-Length: 10"} <= set(lines)
    assert lines[-6:] == ["  signatures: not checked (give --secret)", "", "{", '  "n": 1.0', "}", ""]


def test_what_it_prints_of_a_payload_moves_no_cursor_and_fails_over_nothing(start):
    receiver = start()
    assert receiver.post(b'"\\u202e\\u009b2J\\ud800"').status_code == 200
    assert receiver.printed()[-2] == r'"\u202e\u009b2J\ud800"'
    deep = b"[" * 5000 + b"]" * 5000
    assert receiver.post(deep).status_code == 200
    assert receiver.printed()[-2] == repr(deep)


def test_it_judges_both_signatures(start):
    receiver = start("--secret", SECRET)
    now = int(time.time())
    during_a_rotation = signed(timestamp=now)
    during_a_rotation["webhook-signature"] = "v1,b3RoZXI= " + during_a_rotation["webhook-signature"]
    cases = [
        (signed(), "both valid"),
        (during_a_rotation, "both valid"),
        (signed(timestamp=now - 290), "both valid"),
        ({}, "X-Webhook-Signature is WRONG; webhook-signature is WRONG"),
        (signed(key=b"other"), "X-Webhook-Signature is WRONG; webhook-signature is WRONG"),
        (signed(BODY + b" "), "X-Webhook-Signature is WRONG; webhook-signature is WRONG"),
        (signed() | {"X-Webhook-Signature": "sha256=0"}, "X-Webhook-Signature is WRONG"),
        (signed() | {"webhook-signature": "v1,"}, "webhook-signature is WRONG"),
        (signed() | {"webhook-id": "another"}, "webhook-signature is WRONG"),
        (signed() | {"webhook-timestamp": "1"}, "webhook-signature is WRONG"),
        (signed() | {"webhook-timestamp": "now"}, "webhook-signature is WRONG"),
        (signed(timestamp=now - 400), "webhook-timestamp is more than 5 minutes off"),
        (signed(timestamp=now + 400), "webhook-timestamp is more than 5 minutes off"),
    ]
    for headers, expected in cases:
        assert receiver.post(headers=headers).status_code == 200
        assert verdict(receiver.printed()) == expected, headers


def test_it_approves_of_what_the_service_sends(start, make_subscription, make_request, deliver):
    receiver = start("--secret", SECRET)
    request = make_request(make_subscription(receiver.url, secret=SECRET), BODY)
    assert deliver() == 1
    lines = receiver.printed()
    assert verdict(lines) == "both valid"
    assert f"  webhook-id: {request.id}" in lines
    request.refresh_from_db()
    assert request.status == "delivered"


def test_it_answers_each_status_in_turn_and_then_the_last_one_for_ever(start):
    receiver = start("--status", "500,503,204,200")
    assert [receiver.post().status_code for _ in range(6)] == [500, 503, 204, 200, 200, 200]
    assert [receiver.printed()[0].rsplit("-> ")[1] for _ in range(6)] == ["500", "503", "204", "200", "200", "200"]


def test_it_prints_what_is_not_json_as_it_is(start):
    receiver = start()
    receiver.post(b"\xff\n\x1b[31m")
    assert receiver.printed()[-2:] == [repr(b"\xff\n\x1b[31m"), ""]


def test_it_never_answers_when_told_to_hang_and_still_ends(start):
    receiver = start("--hang")
    host, port = receiver.url.removeprefix("http://").rstrip("/").split(":")
    with closing(socket.create_connection((host, int(port)))) as caller:
        caller.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        assert receiver.printed()[0].endswith(" POST /  -> no answer")
        caller.setblocking(False)
        with pytest.raises(BlockingIOError):
            caller.recv(1)


def test_it_waits_as_long_as_it_is_told(start):
    receiver = start("--delay", "0.3")
    assert receiver.post().elapsed.total_seconds() >= 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--status", "soon"], "Error: argument --status: write status codes, such as 500,500,200"),
        (["--status", ""], "Error: argument --status: write status codes, such as 500,500,200"),
        (["--status", "200,600"], "Error: argument --status: a status code is from 200 to 599"),
        (["--status", "100"], "Error: argument --status: a status code is from 200 to 599"),
        (["--port", "x"], BAD_PORT),
        (["--port", "65536"], BAD_PORT),
        (["--port", "-1"], BAD_PORT),
        (["--host", "localhost"], "Error: argument --host: write an IP address, such as 127.0.0.1 or ::1"),
        (["--host", ""], "Error: argument --host: write an IP address, such as 127.0.0.1 or ::1"),
        (["--secret", ""], "Error: argument --secret: the secret is empty"),
        (["--secret", "whsec_"], "Error: argument --secret: The part after whsec_ is empty."),
        (["--secret", "whsec_!"], "Error: argument --secret: The part after whsec_ is not base64."),
        (["--delay", "-1"], "Error: argument --delay: a delay is from 0 to 3600 seconds"),
        (["--delay", "nan"], "Error: argument --delay: a delay is from 0 to 3600 seconds"),
        (["--delay", "x"], "Error: argument --delay: write a number of seconds"),
    ],
)
def test_it_refuses_bad_input(arguments, message):
    with pytest.raises(CommandError) as refused:
        call_command("webhook_receiver", *arguments)
    assert str(refused.value).startswith(message)


def test_it_says_when_the_port_is_taken(receiver):
    with pytest.raises(CommandError) as refused:
        call_command("webhook_receiver", "--port", str(receiver.server_port))
    told = f"Cannot listen on 127.0.0.1:{receiver.server_port} (Address already in use). Choose another port with"
    assert str(refused.value) == f"{told} --port."


def test_it_says_when_the_address_is_none_of_this_machine():
    with pytest.raises(CommandError) as refused:
        call_command("webhook_receiver", "--host", "192.0.2.1", "--port", "0")
    told = "Cannot listen on 192.0.2.1:0 (Cannot assign requested address). Choose another address with --host."
    assert str(refused.value) == told


def test_it_listens_on_ipv6(start):
    receiver = start("--host", "::1")
    assert receiver.url.startswith("http://[::1]:")
    assert receiver.post().status_code == 200
