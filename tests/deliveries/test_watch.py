"""Receivers that send without end what TLS takes and no answer holds: they do not hold up the loop."""

import contextlib
import os
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from deliveries.connections import Connections
from deliveries.outcome import ErrorClass
from deliveries.resolver import Resolver
from deliveries.watch import Watch
from tests import certificates
from tests.certificates import Authority
from tests.deliveries import hostile, records
from tests.deliveries.calling import LONG_SECONDS, a_call, make_transport, outcomes, url_of
from tests.deliveries.hostile import Behaviour, Connection, listening
from tests.deliveries.records import Records

# The limit of the calls, and how long a receiver goes on: without the watch a call lasts as long as that.
SHORT_SECONDS = 1.0
FLOOD_SECONDS = 12.0
# In time, whatever else the machine does.
SOON_SECONDS = 6.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return certificates.make_authority(tmp_path)


@pytest.fixture
def context(tmp_path: Path, authority: Authority) -> ssl.SSLContext:
    return certificates.server_context(tmp_path, authority)


def floods_with_tickets(own: Records, answer: bytes) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.read_request()
        own.begin()
        with socket.socket(fileno=os.dup(connection.stream.fileno())) as raw:
            raw.settimeout(LONG_SECONDS)
            if answer:
                raw.sendall(own.record(answer, records.DATA))
            until = time.monotonic() + FLOOD_SECONDS
            while time.monotonic() < until and not connection.listener.is_over.is_set():
                raw.sendall(own.record(records.TICKET * 800, records.HANDSHAKE))

    return behave


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"", ErrorClass.RESET), (hostile.LAST_OK, None), (hostile.OK, None)],
    ids=["before its answer", "after its last answer", "after an answer"],
)
def test_tickets_without_end_hold_up_no_other_call(
    answer: bytes, error: ErrorClass | None, authority: Authority, context: ssl.SSLContext, tmp_path: Path
) -> None:
    behaviour = floods_with_tickets(Records(context, tmp_path / "keys.log"), answer)
    with listening(behaviour, context=context) as listener, listening(hostile.answers(hostile.OK)) as healthy:
        began_at = time.monotonic()
        with contextlib.closing(make_transport(ca_bundle=authority.bundle)) as transport:
            url = url_of(listener, host="localhost", scheme="https")
            both = outcomes(
                transport,
                a_call(url, tag="hostile", seconds=SHORT_SECONDS),
                a_call(url_of(healthy), tag="healthy"),
            )
        lasted_seconds = time.monotonic() - began_at
    assert both["hostile"].error == error
    assert both["healthy"].is_success
    assert lasted_seconds < SOON_SECONDS


def test_a_watch_ends_no_connection_that_a_step_does_not_read_from(caplog: pytest.LogCaptureFixture) -> None:
    """However long the step lasts, and however much comes in: another step is to read it."""
    connections = Connections()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as ours,
        server.accept()[0] as theirs,
        contextlib.closing(Watch(connections)) as watch,
    ):
        connections.add(ours.fileno())
        theirs.setblocking(False)
        until = time.monotonic() + 1
        with watch:
            while time.monotonic() < until:
                with contextlib.suppress(BlockingIOError):
                    theirs.send(bytes(100_000))
        assert ours.recv(1) == b"\0"
    assert caplog.records == []


def test_what_is_computed_in_a_step_over_many_calls_is_no_single_ones() -> None:
    """A call that begins its handshake beside a thousand others would be ended for their work."""

    def step(step_of: contextlib.AbstractContextManager[None]) -> float:
        with step_of:
            sum(range(10_000))
            return watch.computed_seconds

    with contextlib.closing(Watch(Connections())) as watch:
        assert step(watch.of_many()) == 0
        assert step(watch) > 0


def test_a_descriptor_that_is_another_one_by_now_is_not_looked_at() -> None:
    connections = Connections()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as ours,
        socket.create_connection(server.getsockname()) as another,
    ):
        connections.add(ours.fileno())
        assert connections.read_bytes() == {ours.fileno(): 0}
        os.dup2(another.fileno(), ours.fileno())
        assert connections.read_bytes() == {}


def test_a_transport_that_cannot_be_made_leaves_no_thread_behind() -> None:
    """As where no descriptor is left: its resolver is closed, and cannot be waited for."""
    before = set(threading.enumerate())
    resolver = Resolver()
    resolver.close()
    with pytest.raises((OSError, ValueError)):
        make_transport(resolver=resolver)
    assert set(threading.enumerate()) <= before
