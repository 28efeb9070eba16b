"""The proxy makes the trouble that it is told to make."""

import http.client
import socket
from collections.abc import Iterator

import pytest

from tests.faults.loop import LoopThread
from tests.faults.proxy import Mode, Proxy
from tests.faults.receiver import Receiver

SILENCE_SECONDS = 0.2


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy in front of a receiver."""
    thread = LoopThread()
    receiver = Receiver(thread)
    made = Proxy(thread, ("127.0.0.1", receiver.port))
    yield made
    made.close()
    receiver.close()
    thread.stop()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=5)
    yield connection
    connection.close()


def call(client: http.client.HTTPConnection, body: bytes = b"{}") -> int:
    client.request("POST", "/hook", body)
    answer = client.getresponse()
    answer.read()
    return answer.status


def test_it_lets_everything_pass(client: http.client.HTTPConnection):
    assert [call(client), call(client)] == [200, 200]


def test_it_refuses_connections_and_takes_them_again_on_the_same_port(
    proxy: Proxy, client: http.client.HTTPConnection
):
    assert call(client) == 200
    proxy.set(Mode.REFUSE)
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        call(client)
    client.close()
    with pytest.raises(ConnectionRefusedError):
        call(client)
    client.close()
    proxy.heal()
    assert call(client) == 200


def test_it_says_nothing_and_later_passes_on_what_was_said(proxy: Proxy, client: http.client.HTTPConnection):
    proxy.set(Mode.BLACKHOLE)
    client.request("POST", "/hook", b"{}")
    client.sock.settimeout(SILENCE_SECONDS)
    with pytest.raises(TimeoutError):
        client.sock.recv(1)
    client.sock.settimeout(5)
    proxy.heal()
    assert client.sock.recv(12) == b"HTTP/1.1 200"


def test_it_resets_connections(proxy: Proxy, client: http.client.HTTPConnection):
    assert call(client) == 200
    proxy.set(Mode.RESET)
    with pytest.raises(ConnectionError):
        call(client)


def test_it_delays(proxy: Proxy, client: http.client.HTTPConnection):
    proxy.set(Mode.PASS, delay_seconds=SILENCE_SECONDS)
    client.request("POST", "/hook", b"{}")
    client.sock.settimeout(SILENCE_SECONDS)
    with pytest.raises(TimeoutError):
        client.sock.recv(1)


@pytest.mark.parametrize("of_answers", [True, False])
def test_it_cuts_once_after_so_many_bytes(proxy: Proxy, client: http.client.HTTPConnection, of_answers: bool):
    assert call(client) == 200
    proxy.cut(after_bytes=10, of_answers=of_answers)
    with pytest.raises((ConnectionError, http.client.BadStatusLine)):
        call(client)
    assert proxy.cuts_made == 1
    client.close()
    assert call(client) == 200


def test_it_forgets_what_is_open_and_serves_what_is_new(proxy: Proxy, client: http.client.HTTPConnection):
    assert call(client) == 200
    proxy.forget()
    client.request("POST", "/hook", b"{}")
    client.sock.settimeout(SILENCE_SECONDS)
    with pytest.raises(TimeoutError):
        client.sock.recv(1)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as fresh:
        fresh.sendall(b"POST /hook HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        assert fresh.recv(12) == b"HTTP/1.1 200"
