"""Calls that cannot be made, names that do not resolve, and the environment that has no say."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deliveries.outcome import ErrorClass
from deliveries.resolver import Resolver
from deliveries.transport import Call, Transport
from tests.deliveries import hostile
from tests.deliveries.calling import (
    CALL_FROM_A_FRESH_PROCESS,
    LONG_SECONDS,
    ROOT,
    SILENT_SECONDS,
    a_call,
    make_transport,
    outcome,
    url_of,
)
from tests.deliveries.hostile import listening


def test_a_refused_connection_is_told_from_other_failures(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert outcome(transport, f"http://127.0.0.1:{port}/").error == ErrorClass.CONNECT


def test_the_environment_has_no_say(tmp_path: Path) -> None:
    for name in (".netrc", "_netrc", ".curlrc"):
        (tmp_path / name).write_text("machine 127.0.0.1 login intruder password secret\n")
    with listening(hostile.says_nothing) as proxy, listening(hostile.answers(hostile.OK)) as listener:
        names = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
        environment = {name: url_of(proxy) for name in names} | {
            "no_proxy": "",
            "HOME": str(tmp_path),
            "CURL_HOME": str(tmp_path),
            "NETRC": str(tmp_path / ".netrc"),
            "CURL_CA_BUNDLE": "/nowhere",
            "SSL_CERT_FILE": "/nowhere",
            "CURL_SSL_BACKEND": "nonsense",
        }
        command = [sys.executable, "-c", CALL_FROM_A_FRESH_PROCESS, url_of(listener)]
        process = subprocess.run(
            command, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert (process.stdout, process.stderr) == ("None\n", "")
        assert proxy.connections == 0
    assert b"authorization" not in listener.requests[0].lower()


BAD_CALLS = {
    "a control character in the URL": {"url": "http://127.0.0.1/\x01"},
    "a line break in the URL": {"url": "http://127.0.0.1/\r\nX-Injected: 1"},
    "a space in the URL": {"url": "http://127.0.0.1/a b"},
    "a NUL in the URL": {"url": "http://127.0.0.1/\0"},
    "non-latin text in the URL": {"url": "http://127.0.0.1/☃"},
    "a CRLF in a header": {"headers": ["X-A: 1\r\nX-Injected: 1"]},
    "a line feed in a header": {"headers": ["X-A: 1\nX-Injected: 1"]},
    "a carriage return in a header": {"headers": ["X-A: 1\rX-Injected: 1"]},
    "a NUL in a header": {"headers": ["X-A: 1\0"]},
    "non-latin text in a header": {"headers": ["X-A: ☃"]},
    "accented text in a header": {"headers": ["X-A: é"]},
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_call_is_refused_with(name: str, transport: Transport) -> None:
    fields = {"tag": "", "url": "http://127.0.0.1/", "headers": [], "body": b"", "timeout_seconds": 1}
    with listening(hostile.answers(hostile.OK)) as listener:
        assert outcome(transport, url_of(listener)).is_success
        with pytest.raises(ValueError, match="call"):
            transport.send(Call(**(fields | BAD_CALLS[name])))
        assert transport.in_flight == 0
        assert outcome(transport, url_of(listener)).is_success
        assert listener.connections == 1


def test_a_url_that_is_none_is_nobody_elses_fault(transport: Transport) -> None:
    assert outcome(transport, "http://127.0.0.1:99999/").error == ErrorClass.INTERNAL


def test_a_name_that_does_not_resolve_is_told_from_other_failures(transport: Transport) -> None:
    result = outcome(transport, "http://no-such-name.invalid/", seconds=30)
    assert (result.error, result.connect_ms) == (ErrorClass.DNS, None)


def test_names_that_nobody_answers_for_hold_up_no_other_call() -> None:
    answered = threading.Event()

    def lookup(host: str) -> list[str]:
        if host.startswith("silent"):
            answered.wait(LONG_SECONDS)
        return ["127.0.0.1"]

    with (
        listening(hostile.answers(hostile.OK)) as listener,
        contextlib.closing(make_transport(resolver=Resolver(lookup))) as transport,
    ):
        assert outcome(transport, url_of(listener, "known.example")).is_success
        for number in range(100):
            transport.send(a_call(url_of(listener, f"silent-{number}.example"), seconds=SILENT_SECONDS))
        for url in (url_of(listener), url_of(listener, "known.example")):
            transport.send(a_call(url, tag="healthy"))
        finished = []
        while len(finished) < 102:
            finished += transport.wait(2)
        answered.set()
    assert [each.outcome.error for each in finished] == [None, None] + [ErrorClass.DNS] * 100
    assert min(each.outcome.response_ms for each in finished[2:]) >= SILENT_SECONDS * 1000
