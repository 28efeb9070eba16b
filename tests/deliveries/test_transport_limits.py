"""Calls to receivers of every kind end in time, over real sockets; see handle.py for the rules.

What is promised: receivers that drip headers or body, answer 100 Continue without end, stall
in the TLS handshake, send 50 MB, a gzip bomb, garbage, a reset, or nothing: the call ends
within its limit + 1 s, is classified, and the worker's memory stays flat.
"""

import contextlib
import threading
import time
from collections import Counter

import psutil
import pytest

from deliveries import transport as transport_module
from deliveries.outcome import ErrorClass
from deliveries.transport import Transport
from tests.deliveries import hostile
from tests.deliveries.calling import (
    LONG_SECONDS,
    SILENT_SECONDS,
    a_call,
    make_transport,
    outcome,
    outcomes,
    url_of,
)
from tests.deliveries.hostile import Behaviour, Connection, head, listening

# The limit of calls that are meant to run out of time.
SHORT_SECONDS = 0.6


def rss_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1_000_000


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
    "floods within the size of a chunk": (
        hostile.floods(head("200 OK", "Transfer-Encoding: chunked") + b"1;", bytes(100_000).replace(b"\0", b"x")),
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


@pytest.mark.parametrize("calls", [1, 5])
def test_answers_that_came_in_time_count_though_the_loop_was_held_up(
    transport: Transport, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """As by a database that hangs for seconds: that is not the receiver's fault, however many have answered."""
    monkeypatch.setattr(transport_module, "EVENTS_PER_STEP", 1)
    monkeypatch.setattr(transport_module, "LOOK_SECONDS", 0.0)
    sending, sent = threading.Event(), threading.Semaphore(0)

    def behave(connection: Connection) -> None:
        connection.read_request()
        sending.wait(LONG_SECONDS)
        connection.send(hostile.OK)
        sent.release()
        connection.hold()

    with listening(behave) as listener, listening(hostile.says_nothing) as silent:
        for tag, each in (*[("in time", listener)] * calls, ("silent", silent)):
            transport.send(a_call(url_of(each), tag=tag, seconds=SILENT_SECONDS))
        while len(listener.requests) < calls:
            transport.wait(0.01)
        sending.set()
        assert all(sent.acquire(timeout=LONG_SECONDS) for _ in range(calls))
        # Holds up the loop, past the limit of all: this call of another loop begins later and lasts as long.
        with contextlib.closing(make_transport()) as other:
            assert outcome(other, url_of(silent), seconds=SILENT_SECONDS).error == ErrorClass.TIMEOUT
        finished = []
        while transport.in_flight:
            finished += transport.wait(0.1)
    counts = Counter((one.call.tag, one.outcome.error) for one in finished)
    assert counts == {("in time", None): calls, ("silent", ErrorClass.TIMEOUT): 1}


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
