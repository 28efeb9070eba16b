"""Calls over real sockets to receivers of every kind; see handle.py for the rules."""

import contextlib
import gc
import gzip
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pycurl
import pytest

from deliveries.answer import MAX_HEADER_BYTES, MAX_PIECES, MAX_RESPONSE_BYTES
from deliveries.outcome import ErrorClass
from deliveries.resolver import Resolver
from deliveries.transport import Call, Transport
from tests.deliveries import hostile
from tests.deliveries.calling import (
    CALL_FROM_A_FRESH_PROCESS,
    LONG_SECONDS,
    ROOT,
    a_call,
    make_transport,
    outcome,
    outcomes,
    url_of,
)
from tests.deliveries.hostile import Behaviour, Connection, listening

# The limit of calls that are meant to run out of time.
SHORT_SECONDS = 0.6
SILENT_SECONDS = 3.0


@pytest.fixture
def transport() -> Iterator[Transport]:
    with contextlib.closing(make_transport()) as transport:
        yield transport


def head(status: str, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def rss_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1_000_000


def descriptors() -> int:
    return int(psutil.Process().num_fds())


def count_handles() -> int:
    gc.collect()
    return sum(type(thing) is pycurl.Curl for thing in gc.get_objects())


def half_of(answer: bytes) -> bytes:
    return answer[: len(answer) // 2]


CLOSING = head("200 OK", "Content-Length: 2")
HUGE = head("200 OK", "Content-Length: 50000000")
MEGABYTE_OF_HEADERS = head("200 OK", *(f"X-Filler-{number}: {'x' * 1000}" for number in range(1000)))

# What the receiver does; what the call is then called; the status that is noted.
OUT_OF_TIME: dict[str, tuple[Behaviour, int | None]] = {
    "drips its headers": (hostile.drips(head("200 OK")[:-2] + b"X-Drop: ", b"x"), 200),
    "drips its body": (hostile.drips(HUGE, b"x"), 200),
    "drips 100 Continue": (hostile.drips(b"", head("100 Continue")), None),
    "never sends the body it announced": (hostile.drips(HUGE, b""), 200),
    "says nothing": (hostile.says_nothing, None),
    "answers 410 without an end": (hostile.drips(head("410 Gone", "Content-Length: 9"), b""), 410),
}
AT_ONCE: dict[str, tuple[Behaviour, ErrorClass | None, int | None]] = {
    "floods with 100 Continue": (hostile.floods(b"", head("100 Continue")), ErrorClass.PROTOCOL, None),
    "floods with 103 Early Hints": (
        hostile.floods(b"", head("103 Early Hints", "Link: </style.css>; rel=preload")),
        ErrorClass.PROTOCOL,
        None,
    ),
    "switches protocols unasked": (
        hostile.answers_and_closes(head("101 Switching Protocols", "Upgrade: websocket")),
        ErrorClass.RESET,
        None,
    ),
    "only continues": (hostile.answers_and_closes(head("100 Continue")), ErrorClass.RESET, None),
    "closes at once": (hostile.closes_at_once, ErrorClass.RESET, None),
    "resets at once": (hostile.answers_and_resets(b""), ErrorClass.RESET, None),
    "closes within its headers": (hostile.answers_and_closes(half_of(CLOSING)), ErrorClass.RESET, 200),
    "resets within its headers": (hostile.answers_and_resets(half_of(CLOSING)), ErrorClass.RESET, 200),
    "cuts the body of a 200": (hostile.answers_and_closes(HUGE + b"x"), None, 200),
    "resets within the body of a 200": (hostile.answers_and_resets(HUGE + b"x"), None, 200),
    "cuts the body of a 500": (
        hostile.answers_and_closes(head("500 Oh", "Content-Length: 9")),
        ErrorClass.HTTP_5XX,
        500,
    ),
    "sends 50 MB": (hostile.floods(HUGE, bytes(100_000)), None, 200),
    "sends 50 MB with a 404": (
        hostile.floods(HUGE.replace(b"200 OK", b"404 No"), bytes(100_000)),
        ErrorClass.HTTP_4XX,
        404,
    ),
    "sends a gzip bomb": (
        hostile.answers(
            head("200 OK", "Content-Encoding: gzip", f"Content-Length: {len(hostile.BOMB)}") + hostile.BOMB
        ),
        None,
        200,
    ),
    "redirects with a gzip bomb": (
        hostile.answers(
            head("302 Found", "Location: /", "Content-Encoding: gzip", f"Content-Length: {len(hostile.BOMB)}")
            + hostile.BOMB
        ),
        ErrorClass.REDIRECT,
        302,
    ),
    "sends a header of 70 KB": (
        hostile.answers(head("200 OK", f"X-Filler: {'x' * 70_000}", "Content-Length: 0")),
        ErrorClass.PROTOCOL,
        200,
    ),
    "sends a header of 1 MB": (
        hostile.answers(head("200 OK", f"X-Filler: {'x' * 1_000_000}", "Content-Length: 0")),
        ErrorClass.PROTOCOL,
        200,
    ),
    "sends 1 MB of headers": (hostile.answers(MEGABYTE_OF_HEADERS), ErrorClass.PROTOCOL, 200),
    "sends a garbage status line": (
        hostile.answers_and_closes(b"\x00\xffnonsense\r\n\r\n"),
        ErrorClass.PROTOCOL,
        None,
    ),
    "answers like HTTP/0.9": (hostile.answers_and_closes(b"<html>hello</html>"), ErrorClass.PROTOCOL, None),
    "answers 999": (hostile.answers(head("999 Odd", "Content-Length: 0")), ErrorClass.PROTOCOL, 999),
    "answers 000": (hostile.answers_and_closes(head("000 Odd", "Content-Length: 0")), ErrorClass.PROTOCOL, None),
    "garbles its chunks": (
        hostile.answers_and_closes(head("200 OK", "Transfer-Encoding: chunked") + b"zz\r\nnonsense"),
        None,
        200,
    ),
    "sends a body with a 204": (hostile.answers(head("204 No Content") + b"a body all the same"), None, 204),
    "drips 1 KB chunks until the limit of the body": (hostile.floods(HUGE, b"x" * 1000), None, 200),
}


def ends_at_its_limit(transport: Transport, url: str, status_code: int | None = None) -> None:
    """Check that a call that does not come to its end ends in time, and that another beside it is made.

    In time is within a second of its limit. Other work on the machine may hold one up: of three
    calls one has to keep to it.
    """
    late_seconds = []
    while len(late_seconds) < 3 and not any(seconds < 1 for seconds in late_seconds):
        with listening(hostile.answers(hostile.OK)) as healthy:
            started_at = time.monotonic()
            both = outcomes(
                transport,
                a_call(url, tag="hostile", seconds=SHORT_SECONDS),
                a_call(url_of(healthy), tag="healthy"),
            )
            late_seconds.append(time.monotonic() - started_at - SHORT_SECONDS)
        assert (both["hostile"].error, both["hostile"].status_code) == (ErrorClass.TIMEOUT, status_code)
        assert both["healthy"].is_success
    assert 0 <= min(late_seconds) < 1


@pytest.mark.parametrize("name", OUT_OF_TIME)
def test_a_call_ends_at_its_limit_when_the_receiver(name: str, transport: Transport) -> None:
    behaviour, status_code = OUT_OF_TIME[name]
    with listening(behaviour) as listener:
        ends_at_its_limit(transport, url_of(listener), status_code)


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_call_ends_before_its_limit_when_the_receiver(name: str, transport: Transport) -> None:
    behaviour, error, status_code = AT_ONCE[name]
    with listening(behaviour) as listener, listening(hostile.answers(hostile.OK)) as healthy:
        both = outcomes(transport, a_call(url_of(listener), tag="hostile"), a_call(url_of(healthy), tag="healthy"))
    assert (both["hostile"].error, both["hostile"].status_code) == (error, status_code)
    assert both["healthy"].is_success


def test_a_call_ends_at_its_limit_when_the_tls_handshake_stalls(transport: Transport) -> None:
    with listening(hostile.says_nothing) as listener:
        ends_at_its_limit(transport, url_of(listener, scheme="https"))


def test_a_call_ends_at_its_limit_when_the_connection_is_not_taken(transport: Transport) -> None:
    with hostile.full_backlog() as port:
        ends_at_its_limit(transport, f"http://127.0.0.1:{port}/")


def test_an_answer_that_came_in_time_counts_though_the_loop_was_held_up(transport: Transport) -> None:
    """As by a database that hangs for seconds: that is not the receiver's fault."""
    sending, sent = threading.Event(), threading.Event()

    def behave(connection: Connection) -> None:
        connection.read_request()
        sending.wait(LONG_SECONDS)
        connection.send(hostile.OK)
        sent.set()
        connection.hold()

    with listening(behave) as listener, listening(hostile.says_nothing) as silent:
        for tag, each in (("in time", listener), ("silent", silent)):
            transport.send(a_call(url_of(each), tag=tag, seconds=SILENT_SECONDS))
        while not listener.requests:
            transport.wait(0.01)
        sending.set()
        assert sent.wait(LONG_SECONDS)
        time.sleep(SILENT_SECONDS)  # holds up the loop, past the limit of both
        finished = []
        while transport.in_flight:
            finished += transport.wait(0.1)
    assert {one.call.tag: one.outcome.error for one in finished} == {"in time": None, "silent": ErrorClass.TIMEOUT}


def test_a_refused_connection_is_told_from_other_failures(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert outcome(transport, f"http://127.0.0.1:{port}/").error == ErrorClass.CONNECT


@pytest.mark.parametrize(
    "name",
    [
        "floods with 100 Continue",
        "sends 50 MB",
        "sends a gzip bomb",
        "redirects with a gzip bomb",
        "sends 1 MB of headers",
        "sends a header of 1 MB",
        "resets within the body of a 200",
    ],
)
def test_memory_stays_flat_when_the_receiver(name: str, transport: Transport) -> None:
    with listening(AT_ONCE[name][0]) as listener:
        for _ in range(10):
            outcome(transport, url_of(listener))
        before = rss_mb()
        for _ in range(100):
            outcome(transport, url_of(listener))
        assert rss_mb() - before < 20


def test_memory_stays_flat_while_receivers_drip_and_stall(transport: Transport) -> None:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listening(behaviour)) for behaviour, _ in OUT_OF_TIME.values()]
        sizes = []
        for _ in range(3):
            calls = [
                a_call(url_of(listener), tag=f"{listener.port} {number}", seconds=SHORT_SECONDS)
                for listener in listeners
                for number in range(20)
            ]
            assert {result.error for result in outcomes(transport, *calls).values()} == {ErrorClass.TIMEOUT}
            sizes.append(rss_mb())
        assert sizes[-1] - sizes[0] < 20


# What is kept


def test_a_bounded_part_of_the_body_is_kept_as_it_was_sent(transport: Transport) -> None:
    body = gzip.compress(os.urandom(100_000))
    answer = head("200 OK", "Content-Encoding: gzip", f"Content-Length: {len(body)}") + body
    with listening(hostile.answers(answer)) as listener:
        result = outcome(transport, url_of(listener))
    assert result.is_success
    assert result.response_body == body[:MAX_RESPONSE_BYTES]


def test_a_body_of_just_the_limit_is_kept_whole_with_its_connection(transport: Transport) -> None:
    body = os.urandom(MAX_RESPONSE_BYTES)
    with listening(hostile.answers(head("200 OK", f"Content-Length: {len(body)}") + body)) as listener:
        assert [outcome(transport, url_of(listener)).response_body == body for _ in range(2)] == [True, True]
        assert listener.connections == 1


def test_a_body_that_comes_in_very_many_pieces_is_kept_in_part(transport: Transport) -> None:
    answer = head("200 OK", "Transfer-Encoding: chunked")
    for pieces, kept in ((MAX_PIECES, MAX_PIECES), (2 * MAX_PIECES, MAX_PIECES + 1)):
        with listening(hostile.answers(answer + b"1\r\nx\r\n" * pieces + b"0\r\n\r\n")) as listener:
            result = outcome(transport, url_of(listener))
        assert result.is_success
        assert len(result.response_body) == kept


def test_headers_are_kept_up_to_a_limit(transport: Transport) -> None:
    answer = head("200 OK", f"X-Filler: {'x' * (MAX_HEADER_BYTES - 100)}", "Content-Length: 0")
    with listening(hostile.answers(answer)) as listener:
        result = outcome(transport, url_of(listener))
    assert result.is_success
    assert result.response_headers == answer.decode().strip()


def test_headers_that_may_hold_credentials_are_not_kept(transport: Transport) -> None:
    answer = head(
        "200 OK",
        "X-Before: kept",
        "Set-Cookie: session=secret",
        "SET-COOKIE : session=secret",
        "WWW-Authenticate: Basic realm=secret,",
        "  more=secret",
        "Authorization: Bearer secret",
        "Proxy-Authenticate: secret",
        "X-Author: kept",
        "Content-Length: 0",
    )
    with listening(hostile.answers(answer)) as listener:
        result = outcome(transport, url_of(listener))
    assert result.response_headers.split("\r\n") == [
        "HTTP/1.1 200 OK",
        "X-Before: kept",
        "X-Author: kept",
        "Content-Length: 0",
    ]


def test_an_interim_answer_leaves_nothing_behind(transport: Transport) -> None:
    answer = head("103 Early Hints", "X-Hint: no") + head("200 OK", "X-Final: yes", "Content-Length: 0")
    with listening(hostile.answers(answer)) as listener:
        result = outcome(transport, url_of(listener))
    assert (result.error, result.status_code) == (None, 200)
    assert result.response_headers == "HTTP/1.1 200 OK\r\nX-Final: yes\r\nContent-Length: 0"


def test_nothing_of_one_call_is_in_the_next_one(transport: Transport) -> None:
    cookie = head("200 OK", "Set-Cookie: session=1; Path=/", "X-First: 1", "Content-Length: 5") + b"first"
    replies = iter([cookie, head("200 OK", "Content-Length: 0")])

    def behave(connection: Connection) -> None:
        for reply in replies:
            connection.read_request()
            connection.send(reply)

    with listening(behave) as listener:
        outcome(transport, url_of(listener), body=b"x" * 10_000)
        second = outcome(transport, url_of(listener), body=b"")
    assert (second.response_headers, second.response_body) == ("HTTP/1.1 200 OK\r\nContent-Length: 0", b"")
    assert b"cookie" not in listener.requests[1].lower()
    assert listener.requests[1].endswith(b"\r\n\r\n")


def test_a_body_is_sent_byte_for_byte(transport: Transport) -> None:
    body = bytes(range(256)) * 8_000
    with listening(hostile.answers(hostile.OK)) as listener:
        assert outcome(transport, url_of(listener), body=body).is_success
    head_of_request, _, sent = listener.requests[0].partition(b"\r\n\r\n")
    assert sent == body
    assert b"expect" not in head_of_request.lower()
    assert b"accept-encoding" not in head_of_request.lower()


# The environment


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


# Keep-alive


def test_a_connection_serves_call_after_call(transport: Transport) -> None:
    with listening(hostile.answers(hostile.OK)) as listener:
        assert all(outcome(transport, url_of(listener)).is_success for _ in range(20))
        assert (listener.connections, len(listener.requests)) == (1, 20)


def test_a_kept_connection_that_the_receiver_closed_costs_no_attempt(transport: Transport) -> None:
    with listening(hostile.answers_and_closes(hostile.OK)) as listener:
        for count in range(1, 11):
            assert outcome(transport, url_of(listener)).is_success
            listener.wait_for_closed(count)
        assert (listener.connections, len(listener.requests)) == (10, 10)


def test_no_dead_connection_of_many_costs_an_attempt(transport: Transport) -> None:
    """As after a restart of the receiver: libcurl alone gives up after five dead connections."""
    with listening(hostile.answers_and_closes(hostile.OK)) as listener:
        for rounds in range(1, 4):
            calls = [a_call(url_of(listener), tag=str(number)) for number in range(40)]
            assert all(result.is_success for result in outcomes(transport, *calls).values())
            listener.wait_for_closed(rounds * 40)
        assert (listener.connections, len(listener.requests)) == (120, 120)


def test_a_half_closed_connection_is_not_used_again(transport: Transport) -> None:
    with listening(hostile.half_closes) as listener:
        for count in range(1, 4):
            assert outcome(transport, url_of(listener)).is_success
            listener.wait_for_closed(count)
        assert (listener.connections, len(listener.requests)) == (3, 3)


def test_an_answer_that_nobody_asked_for_is_no_answer_to_the_next_call(transport: Transport) -> None:
    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.send(hostile.OK)
        connection.send(head("500 Unasked", "Content-Length: 0"))
        connection.listener.note_close()
        connection.read_request()

    with listening(behave) as listener:
        assert outcome(transport, url_of(listener)).is_success
        listener.wait_for_closed(1)
        assert outcome(transport, url_of(listener)).is_success


def ends_the_second_request(end: Callable[[Connection], None]) -> Behaviour:
    """Answer the first request of the first connection, end the second one, and answer all others."""

    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.send(hostile.OK)
        if connection.number == 1:
            end(connection)
            return
        hostile.answers(hostile.OK)(connection)

    return behave


def reads_and(finish: Callable[[Connection], None]) -> Callable[[Connection], None]:
    def end(connection: Connection) -> None:
        connection.read_request()
        finish(connection)

    return end


def reads_a_part_and_closes(connection: Connection) -> None:
    connection.listener.note(connection.stream.recv(20))
    connection.close()


@pytest.mark.parametrize(
    ("end", "body"),
    [
        (reads_and(Connection.close), b"{}"),
        (reads_and(Connection.reset), b"{}"),
        (reads_and(Connection.close), b"x" * 3_000_000),
        (reads_a_part_and_closes, b"{}"),
        (reads_a_part_and_closes, b"x" * 3_000_000),
    ],
    ids=["read", "read and reset", "long and read", "read in part", "long and read in part"],
)
def test_a_request_that_was_read_without_an_answer_is_not_sent_again(
    end: Callable[[Connection], None], body: bytes, transport: Transport
) -> None:
    """libcurl sends it again by itself, unseen, when the connection had been used before."""
    with listening(ends_the_second_request(end)) as listener:
        assert outcome(transport, url_of(listener)).is_success
        result = outcome(transport, url_of(listener), body=body)
        assert (result.error, result.status_code) == (ErrorClass.RESET, None)
        assert (listener.connections, len(listener.requests)) == (1, 2)
        assert outcome(transport, url_of(listener)).is_success
        assert (listener.connections, len(listener.requests)) == (2, 3)


def test_a_request_is_not_sent_again_on_another_kept_connection(transport: Transport) -> None:
    with listening(ends_the_second_request(reads_and(Connection.close))) as listener:
        calls = [a_call(url_of(listener), tag=str(number)) for number in range(2)]
        assert all(result.is_success for result in outcomes(transport, *calls).values())
        errors = sorted(str(result.error) for result in outcomes(transport, *calls).values())
        assert errors == ["None", "reset"]
        assert (listener.connections, len(listener.requests)) == (2, 4)


# Bad calls

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


def test_refused_calls_leave_no_handle_behind(transport: Transport) -> None:
    bad = Call(tag="", url="http://127.0.0.1/", headers=["X-A: \n"], body=b"", timeout_seconds=1)
    before = count_handles(), descriptors()
    for _ in range(100):
        with pytest.raises(ValueError, match="call"):
            transport.send(bad)
    # Fewer descriptors: what tests before this one left behind was closed meanwhile.
    assert count_handles() == before[0]
    assert descriptors() <= before[1]


def test_a_url_that_is_none_is_nobody_elses_fault(transport: Transport) -> None:
    assert outcome(transport, "http://127.0.0.1:99999/").error == ErrorClass.INTERNAL


# Names


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


# Memory and descriptors

HANGING_CALLS = """
import resource, socket
from deliveries.transport import Call, Transport
from subscriptions.addresses import parse_networks

def rss_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6

resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
before = rss_mb()
transport = Transport(user_agent="tests", allowed_networks=parse_networks(["127.0.0.0/8"]))
# The kernel takes the connections; nobody reads them.
servers = [socket.create_server(("127.0.0.1", 0), backlog=256) for _ in range(20)]
for number in range(2_000):
    url = f"http://127.0.0.1:{servers[number % 20].getsockname()[1]}/"
    body = number.to_bytes(4) * 500
    transport.send(Call(tag=None, url=url, headers=["X-A: b"], body=body, timeout_seconds=4))
hanging = 0
errors = set()
while transport.in_flight:
    errors |= {str(finished.outcome.error) for finished in transport.wait(0.5)}
    hanging = max(hanging, rss_mb())
print(*errors, hanging - before < 75, rss_mb() - before < 75)
"""


def test_2000_hanging_calls_take_little_memory() -> None:
    process = subprocess.run(
        [sys.executable, "-c", HANGING_CALLS], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert (process.stdout, process.stderr) == ("timeout True True\n", "")


def test_no_descriptor_is_left_behind() -> None:
    before = descriptors()
    with (
        contextlib.closing(make_transport()) as transport,
        listening(ends_the_second_request(reads_and(Connection.reset))) as unsteady,
        listening(hostile.answers_and_closes(hostile.OK)) as closing,
    ):
        for listener in itertools.islice(itertools.cycle([unsteady, closing]), 100):
            outcome(transport, url_of(listener))
    gc.collect()
    assert descriptors() <= before
