"""The same on the wire: what the server lets through, what it refuses, and that it lives on."""

import contextlib
import re
import socket

import psutil
import pytest
import requests

from tests.conftest import SECRET, signature_of

pytestmark = pytest.mark.processes

WAIT_SECONDS = 30
MEGABYTE = 1_048_576

HOST = b"Host: 127.0.0.1\r\nX-Forwarded-Proto: https\r\n"
CLOSE = b"Connection: close\r\n"
JSON = b"Content-Type: application/json\r\n"
BODY = b'{"a":1}'
CHUNKS = b"7\r\n" + BODY + b"\r\n0\r\n\r\n"


def get(path: bytes, *fields: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + b"".join(fields) + HOST + CLOSE + b"\r\n"


def post(path: bytes, *fields: bytes, body: bytes = BODY) -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\n" + b"".join(fields) + HOST + JSON + CLOSE + b"\r\n" + body


def exchange(port: int, request: bytes) -> bytes:
    """Send bytes and return everything that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS) as connection:
        # It may have answered, and closed, before everything was sent or read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while received := connection.recv(65536):
                answer += received
        return answer


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", answer)]


# What is refused by the server itself has no problem document; all else has one.
CASES = {
    "without a host": (b"GET /health HTTP/1.1\r\n" + CLOSE + b"\r\n", [400]),
    "another host": (b"GET /health HTTP/1.1\r\nHost: evil.example\r\n" + CLOSE + b"\r\n", [400]),
    "two hosts": (b"GET /health HTTP/1.1\r\nHost: evil.example\r\n" + HOST + CLOSE + b"\r\n", [400]),
    "a host with markup": (b"GET /health HTTP/1.1\r\nHost: <b>\r\n" + CLOSE + b"\r\n", [400]),
    "a forwarded host": (get(b"/health", b"X-Forwarded-Host: evil.example\r\n"), [200]),
    "a URL for a path": (get(b"http://evil.example/health"), [200]),
    "a NUL in the path": (get(b"/subscriptions/%00"), [404]),
    "a raw NUL in the path": (get(b"/subscriptions/\0"), [400]),
    "other bytes in the path": (get(b"/%ff%c3%28"), [404]),
    "a path without end": (get(b"/" + b"a" * 70_000), [414]),
    "a query without end": (get(b"/docs?" + b"a=1&" * 15_000), [400]),
    "a NUL in the query": (get(b"/requests?search=%00"), [401]),
    "other bytes in the query": (get(b"/health?%ff=%fe"), [200]),
    "a header without end": (get(b"/health", b"X: " + b"a" * 4_000_000 + b"\r\n"), [431]),
    "headers without end": (get(b"/health", *[b"X-%d: 1\r\n" % n for n in range(3000)]), [431]),
    "a folded header": (get(b"/health", b"X: a\r\n b\r\n"), [400]),
    "a NUL in a header": (get(b"/health", b"X: a\0b\r\n"), [400]),
    "a space before the colon": (get(b"/health", b"X : a\r\n"), [400]),
    "two keys": (get(b"/requests", b"Authorization: Bearer a\r\n" * 2), [401]),
    "a key that is no text": (get(b"/requests", b"Authorization: Bearer \xff\xfe\r\n"), [401]),
    "an id that is no id": (get(b"/health", b"Request-Id: a\tb\xff\r\n"), [200]),
    "another method": (b"PROPFIND /nowhere HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", [404]),
    "a tunnel": (b"CONNECT 10.0.0.1:22 HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", [404]),
    "a length that is none": (post(b"/ingest", b"Content-Length: abc\r\n"), [400]),
    "a negative length": (post(b"/ingest", b"Content-Length: -1\r\n"), [400]),
    "two lengths": (post(b"/ingest", b"Content-Length: 7\r\nContent-Length: 8\r\n"), [400]),
    "a length without end": (post(b"/ingest", b"Content-Length: " + b"9" * 30 + b"\r\n"), [400]),
    "a length over the limit": (post(b"/ingest", b"Content-Length: 99999999999\r\n"), [413]),
    "the same for Django": (post(b"/subscriptions", b"Content-Length: 99999999999\r\n"), [413]),
    "the same for a form": (post(b"/admin/login/", b"Content-Length: 99999999999\r\n"), [413]),
    "a length that is short": (post(b"/ingest", b"Content-Length: 3\r\n"), [400]),
    "chunks": (post(b"/ingest", b"Transfer-Encoding: chunked\r\n", body=CHUNKS), [400]),
    "chunks that are none": (post(b"/ingest", b"Transfer-Encoding: chunked\r\n", body=b"zz\r\n"), [400]),
    "chunks without end": (
        post(b"/ingest", b"Transfer-Encoding: chunked\r\n", body=(b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 200),
        [413],
    ),
    "another transfer encoding": (post(b"/ingest", b"Transfer-Encoding: xchunked\r\n", body=CHUNKS), [400]),
    "a content encoding": (post(b"/ingest", b"Content-Encoding: gzip\r\nContent-Length: 7\r\n"), [415]),
    "a length and chunks: the chunks count": (
        post(b"/ingest", b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", body=CHUNKS),
        [400],
    ),
    "asking before the body": (post(b"/ingest", b"Expect: 100-continue\r\nContent-Length: 7\r\n"), [100, 400]),
    "calls in one": (
        b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
        b"POST /ingest HTTP/1.1\r\nContent-Length: 7\r\n" + HOST + JSON + b"\r\n" + BODY + get(b"/nowhere"),
        [200, 400, 404],
    ),
    "a call behind a body that nobody read": (
        b"POST /subscriptions HTTP/1.1\r\nContent-Length: 7\r\n" + HOST + JSON + b"\r\n" + BODY + get(b"/health"),
        [401, 200],
    ),
    "a WebSocket": (
        get(b"/health", b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: \xff\r\n"),
        [200],
    ),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), [400]),
    "the way up": (get(b"/static/../config/settings.py"), [404]),
    "the way up, encoded": (get(b"/static/..%2f..%2f..%2fetc/passwd"), [404]),
    "a codec for a charset": (
        b"POST /admin/login/ HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded; charset=zlib\r\n"
        b"Content-Length: 7\r\n" + HOST + CLOSE + b"\r\n" + BODY,
        [403],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_answered_or_refused(production, name):
    request, expected = CASES[name]
    answer = exchange(production.port, request)
    assert statuses(answer) == expected
    for told in answer.split(b"HTTP/1.1 ")[1:]:
        if b"application/" in told:
            assert b"\r\nrequest-id: " in told.lower()
        if b"problem+json" in told:
            assert b'"request_id":' in told


@pytest.fixture(scope="module")
def publish(production):
    """Publish to a path with raw header fields; returns the raw answer."""
    scopes = ("--scope", "publish", "--scope", "manage")
    key = production.manage("create_api_key", "--name", "wire", *scopes).splitlines()[-1]
    authorization = {"Authorization": f"Bearer {key}", "X-Forwarded-Proto": "https"}
    made = requests.post(
        f"{production.url}/subscriptions",
        json={"target_url": "http://127.0.0.1:9000/", "secret": SECRET, "event_types": ["wire"]},
        headers=authorization,
        timeout=WAIT_SECONDS,
    )
    assert made.status_code == 201, made.text
    event = b'{"event_type":"wire","body":1}'
    bodies = {
        b"/ingest": event[:-1] + b',"subscription_id":"%s"}' % made.json()["id"].encode(),
        b"/events": event,
        b"/events/batch": b'{"events":[' + event + b"]}",
    }

    def publish_to(path: bytes, fields: bytes) -> bytes:
        body = bodies[path]
        proof = f"Authorization: Bearer {key}\r\nX-Webhook-Signature: {signature_of(body)}\r\n".encode()
        length = b"Content-Length: %d\r\n" % len(body)
        return exchange(production.port, post(path, proof, length, fields, body=body))

    return publish_to


@pytest.mark.parametrize("path", [b"/ingest", b"/events", b"/events/batch"])
def test_an_idempotency_key_that_is_none_is_refused_and_not_passed_over(publish, path):
    for value in (b"", b" \t", b"\xc3\xbc", b"\xfc", b"a\r\nIdempotency-Key: b", b"x" * 256):
        answer = publish(path, b"Idempotency-Key: " + value + b"\r\n")
        assert (value, statuses(answer)) == (value, [400])
        assert b'"code":"invalid_idempotency_key"' in answer


def test_the_processes_of_web_live_on_with_flat_memory(production):
    web = psutil.Process(production.running[0].pid)
    before = {process.pid: process.memory_info().rss for process in web.children(recursive=True)}
    flood = (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 400
    for path in (b"/ingest", b"/subscriptions", b"/admin/login/", b"/nowhere"):
        for body, field in ((flood, b"Transfer-Encoding: chunked\r\n"), (flood, b"Content-Length: 400000000\r\n")):
            assert statuses(exchange(production.port, post(path, field, body=body)))[:1] == [413]
    nested = b'{"subscription_id":' + b"[" * 900_000
    field = b"Content-Length: %d\r\n" % len(nested)
    for _ in range(20):
        assert statuses(exchange(production.port, post(b"/ingest", field, body=nested))) == [400]
    after = {process.pid: process.memory_info().rss for process in web.children(recursive=True)}
    assert set(after) == set(before)
    assert all(after[pid] < before[pid] + 64 * MEGABYTE for pid in after), (before, after)
    assert requests.get(f"{production.url}/health", timeout=WAIT_SECONDS).status_code == 200
