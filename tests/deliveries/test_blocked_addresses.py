"""Nobody gets in: a canary on loopback must see no connection, whatever name or notation leads to it.

What is promised: http(s) only; no user info; ports from a list; the host in every notation
is judged by the address that the socket is about to connect to, each address at each
connect; what a tenant reads says `blocked_address`, never which address. Which addresses
those are: tests/subscriptions/test_addresses.py and test_addresses_model.py; which URLs:
test_target_urls.py.
"""

import contextlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator

import pytest

from deliveries import queue, worker
from deliveries.dispatcher import Dispatcher
from deliveries.outcome import HINTS, ErrorClass, Outcome
from deliveries.resolver import FRESH_SECONDS, Resolver
from deliveries.transport import Transport
from subscriptions.addresses import RefusedURL, check_url
from tests.deliveries import hostile
from tests.deliveries.calling import a_call, make_transport, outcome, outcomes, url_of
from tests.deliveries.hostile import Listener, listening
from tests.deliveries.names import NameServer, name_server

# Stands for the internet in these tests: an address that may be called, of this machine.
PUBLIC = "127.0.0.2"
PRIVATE = "127.0.0.1"

Canaries = dict[str, Listener]


@pytest.fixture
def canaries() -> Iterator[Canaries]:
    """Listeners at both loopback addresses, on one port, that must not be called."""
    with hostile.listening_twice(hostile.answers(hostile.OK)) as canaries:
        yield canaries
        assert [canary.connections for canary in canaries.values()] == [0, 0]


@pytest.fixture
def closed_transport() -> Iterator[Transport]:
    """A transport as outside of development: no network but the public ones."""
    with contextlib.closing(make_transport("")) as transport:
        yield transport


def calling(
    names: NameServer, networks: str = f"{PUBLIC}/32", *, clock: Callable[[], float] = time.monotonic
) -> contextlib.closing[Transport]:
    return contextlib.closing(make_transport(networks, resolver=Resolver(names.look_up, clock=clock)))


# Notations

# What the C library makes loopback of.
RESOLVED_TO_LOOPBACK = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "0x7f.1",
    "0X7F.0.0.1",
    "0x7f000001",
    "0x7f.0x0.0x0.0x1",
    "0177.0.0.1",
    "0177.0.0.01",
    "00000177.0.0.1",
    "017700000001",
    "2130706433",
    "0x7f.0.1",
    "127.0.0.0x1",
    "0.0.0.0",
    "0",
    "localhost",
    "LOCALHOST",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::ffff:0.0.0.0]",
    "[::127.0.0.1]",
    "[::7f00:1]",
    "[::ffff:0:7f00:1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:53aa:64c:0:7f:80ff:fffe]",
    "[fe80::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fec0::1]",
    "[ff02::1]",
    "169.254.169.254",
    "168.63.129.16",
    "100.100.100.200",
    "10.0.0.1",
    "192.168.0.1",
    "172.16.0.1",
]

# What no part of the service takes for a host, and some part elsewhere might.
TAKEN_FOR_NO_HOST = [
    "①②⑦.⓪.⓪.①",
    "１２７.0.0.1",
    "127。0。0。1",
    "127．0．0．1",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "loca\u00adlhost",
    "localhost\u200b",
    "example.com\\@127.0.0.1",
    "127.0.0.1\\.example.com",
    "127.0.0.1\t",
    "127.0.0.1\0.example.com",
    "127.0.0.1\r\nHost: x",
    "127.0.0.1 .example.com",
    "[::1%25lo]",
    "[fe80::1%25lo]",
    "[::ffff:127.0.0.1.5]",
    "[127.0.0.1]",
    "[v1.127.0.0.1]",
    "256.256.256.256",
    "127.0.0.1.5",
    "user@127.0.0.1",
    "user:password@127.0.0.1",
    "example.com@127.0.0.1",
    "127.0.0.1%2f@example.com",
    "127.0.0.1%00",
    "%31%32%37.0.0.1",
]


@pytest.mark.parametrize("host", RESOLVED_TO_LOOPBACK)
def test_no_notation_of_an_inner_address_is_stored_or_called(
    host: str, closed_transport: Transport, canaries: Canaries
) -> None:
    url = url_of(canaries["::1"], host)
    with pytest.raises(RefusedURL):
        check_url(url)
    assert outcome(closed_transport, url).error == ErrorClass.BLOCKED_ADDRESS


@pytest.mark.parametrize("host", TAKEN_FOR_NO_HOST)
def test_no_url_that_parsers_read_differently_is_stored_or_called(host: str, canaries: Canaries) -> None:
    url = url_of(canaries["::1"], host)
    with pytest.raises(RefusedURL):
        check_url(url)
    with name_server() as names, calling(names, "") as transport:
        try:
            result = outcome(transport, url)
        except ValueError:  # what no call can be made of
            return
    assert result.error in (ErrorClass.BLOCKED_ADDRESS, ErrorClass.DNS, ErrorClass.INTERNAL)


@pytest.mark.parametrize("scheme", ["file", "ftp", "gopher", "dict", "ws", "telnet", "ldap", "unix", ""])
def test_nothing_but_http_is_spoken(scheme: str, transport: Transport) -> None:
    """Not even where the address may be called."""
    with listening(hostile.answers(hostile.OK)) as canary:
        url = f"{scheme}://127.0.0.1:{canary.port}/etc/passwd"
        with pytest.raises(RefusedURL):
            check_url(url)
        result = outcome(transport, url)
        assert (result.is_success, result.response_body, canary.connections) == (False, b"", 0)


@pytest.mark.parametrize("port", [1, 22, 25, 81, 1023, 3306, 5432, 6379, 11211])
def test_no_port_where_no_web_server_is_is_called(port: int, transport: Transport) -> None:
    assert outcome(transport, f"http://127.0.0.1:{port}/").error == ErrorClass.BLOCKED_ADDRESS


def test_ipv6_is_called_where_it_is_allowed(transport: Transport) -> None:
    with listening(hostile.answers(hostile.OK), host="::1") as listener:
        assert all(outcome(transport, url_of(listener, "[::1]")).is_success for _ in range(2))
        assert listener.connections == 1


# Names


@contextlib.contextmanager
def public_and_canary(behaviour: hostile.Behaviour) -> Iterator[tuple[Listener, Listener]]:
    """Listen at the address that may be called, and on the same port where no call may arrive."""
    with contextlib.ExitStack() as stack:
        found: list[Listener] = []
        while len(found) < 2:
            public = stack.enter_context(listening(behaviour, host=PUBLIC))
            with contextlib.suppress(OSError):
                found = [public, stack.enter_context(listening(behaviour, host=PRIVATE, port=public.port))]
        yield found[0], found[1]
        assert found[1].connections == 0


def test_a_name_is_called_at_the_address_that_the_name_server_tells() -> None:
    with public_and_canary(hostile.answers(hostile.OK)) as (public, _), name_server(a=[PUBLIC]) as names:
        with calling(names) as transport:
            assert outcome(transport, url_of(public, "a.example")).is_success
        assert ("a.example", "A") in names.asked
        assert header_of(public.requests[0], "Host") == f"a.example:{public.port}"


def header_of(request: bytes, name: str) -> str:
    return request.decode().partition(f"{name}: ")[2].partition("\r\n")[0]


def test_a_name_that_changes_its_answer_leads_nowhere_else() -> None:
    """DNS rebinding: public when the subscription is made and called at first, private afterwards."""
    hurried = itertools.count(step=FRESH_SECONDS)  # no address is fresh when it is asked for again
    with (
        public_and_canary(hostile.answers_and_closes(hostile.LAST_OK)) as (public, _),
        name_server(a=[PUBLIC]) as names,
        calling(names, clock=hurried.__next__) as transport,
    ):
        url = url_of(public, "a.example")
        assert outcome(transport, url).is_success
        names.zone["a.example"] = [PRIVATE]
        errors = errors_until(transport, url, ErrorClass.BLOCKED_ADDRESS)
        assert set(errors) <= {None, ErrorClass.BLOCKED_ADDRESS}
        assert outcome(transport, url).error == ErrorClass.BLOCKED_ADDRESS
        names.zone["a.example"] = [PUBLIC]
        assert errors_until(transport, url, None)[-1] is None


def errors_until(transport: Transport, url: str, wanted: ErrorClass | None) -> list[ErrorClass | None]:
    """Call until it comes to `wanted`, a bounded number of times, and return what each call came to."""
    errors: list[ErrorClass | None] = []
    while wanted not in errors and len(errors) < 500:
        errors.append(outcome(transport, url).error)
    assert wanted in errors
    return errors


def test_a_name_that_answers_differently_each_time_leads_nowhere_else() -> None:
    # Each look-up asks two questions, so that every third one gets the private address.
    answers = itertools.cycle([[PUBLIC], [PUBLIC], [PRIVATE]])
    with (
        public_and_canary(hostile.answers_and_closes(hostile.LAST_OK)) as (public, _),
        name_server(a=lambda: next(answers)) as names,
    ):
        errors = []
        for _ in range(9):
            with calling(names) as transport:
                errors.append(outcome(transport, url_of(public, "a.example")).error)
        assert errors == [None, None, ErrorClass.BLOCKED_ADDRESS] * 3


@pytest.mark.parametrize(
    "answer", [[PRIVATE, PUBLIC], [PUBLIC, PRIVATE], ["::1", PRIVATE, PUBLIC], ["::ffff:127.0.0.1", PUBLIC]]
)
def test_of_a_mixed_answer_only_the_public_addresses_are_called(answer: list[str]) -> None:
    with (
        public_and_canary(hostile.answers_and_closes(hostile.LAST_OK)) as (public, _),
        name_server(a=answer) as names,
        calling(names) as transport,
    ):
        url = url_of(public, "a.example")
        results = outcomes(transport, *(a_call(url, tag=str(number)) for number in range(10)))
        assert {result.error for result in results.values()} == {None}
        public.stop()
        assert outcome(transport, url).error == ErrorClass.BLOCKED_ADDRESS


@pytest.mark.parametrize("depth", [1, 3])
def test_a_name_that_is_another_name_for_a_private_address_is_not_called(depth: int) -> None:
    aliases = {f"a{number}": [f"a{number + 1}.example"] for number in range(depth)} | {f"a{depth}": [PRIVATE]}
    with (
        public_and_canary(hostile.answers(hostile.OK)) as (public, _),
        name_server(**aliases) as names,
        calling(names) as transport,
    ):
        assert outcome(transport, url_of(public, "a0.example")).error == ErrorClass.BLOCKED_ADDRESS
        assert (f"a{depth}.example", "A") in names.asked


INNER_ADDRESSES = [
    PRIVATE,
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "168.63.129.16",
    "172.31.255.255",
    "192.0.0.8",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "100::1",
    "2001::1",  # Teredo
    "2001:0:53aa:64c:0:7f:80ff:fffe",
    "2001:db8::1",
    "2002:7f00:1::1",  # 6to4
    "2002:a9fe:a9fe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", INNER_ADDRESSES)
def test_a_name_with_an_inner_address_is_not_called(address: str, canaries: Canaries) -> None:
    with name_server(a=[address]) as names, calling(names, "") as transport:
        result = outcome(transport, url_of(canaries["::1"], "a.example"))
    assert (result.error, result.hint, result.connect_ms) == (ErrorClass.BLOCKED_ADDRESS, None, None)


def test_a_name_outside_ascii_in_its_ascii_form_is_judged_by_its_address(canaries: Canaries) -> None:
    with name_server() as names, calling(names, "") as transport:
        names.zone["xn--mnchen-3ya.example"] = [PRIVATE]
        url = url_of(canaries["::1"], "xn--mnchen-3ya.example")
        check_url(url)
        assert outcome(transport, url).error == ErrorClass.BLOCKED_ADDRESS


@pytest.mark.parametrize(
    "status", ["300 Choices", "301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"]
)
def test_a_redirect_leads_nowhere(status: str) -> None:
    with public_and_canary(hostile.answers(hostile.OK)) as (public, canary), name_server(a=[PUBLIC]) as names:
        location = f"Location: {url_of(canary)}"
        answer = "\r\n".join(
            [f"HTTP/1.1 {status}", location, f"Refresh: 0; url={url_of(canary)}", "Content-Length: 0"]
        )
        with (
            listening(hostile.answers(answer.encode() + b"\r\n\r\n"), host=PUBLIC) as redirecting,
            calling(names) as transport,
        ):
            result = outcome(transport, url_of(redirecting, "a.example"))
        assert (result.error, public.connections) == (ErrorClass.REDIRECT, 0)
        assert location in result.response_headers


# What a tenant reads


@pytest.fixture
def blocked_attempt(
    settings, make_subscription, make_request, canaries, caplog, make_client
) -> Callable[[str], tuple[str, str]]:
    """Call a host from a worker that allows nothing, and return what the API and the logs say of it."""
    settings.ALLOWED_NETWORKS = []

    def attempt(host: str) -> tuple[str, str]:
        subscription = make_subscription(url_of(canaries["::1"], host), tenant="acme")
        request = make_request(subscription)
        dispatcher = Dispatcher(
            work_waiting=queue.take_wake_ups, should_stop=worker.is_stopping, keep_alive=worker.keep_alive
        )
        with contextlib.closing(dispatcher), caplog.at_level(logging.DEBUG):
            assert dispatcher.drain() == 1
        client = make_client("read", tenant="acme")
        shown = "".join(
            client.get(path).content.decode()
            for path in (f"/status/request/{request.id}", f"/status/subscription/{subscription.id}")
        )
        logged = json.dumps([{name: str(value) for name, value in vars(one).items()} for one in caplog.records])
        return shown, logged

    return attempt


@pytest.mark.django_db
def test_a_tenant_reads_that_an_address_is_blocked_and_never_which(
    blocked_attempt: Callable[[str], tuple[str, str]],
) -> None:
    shown, logged = blocked_attempt("localhost")
    assert '"error":"blocked_address"' in shown
    assert HINTS[ErrorClass.BLOCKED_ADDRESS] in shown
    assert '"error": "blocked_address"' in logged
    assert [text for text in ("127.0.0.1", "::1", "refused", "loopback") if text in shown + logged] == []


def test_a_blocked_address_is_told_from_no_other_by_its_outcome(canaries: Canaries) -> None:
    """Whether something listens there cannot be found out."""
    with name_server(open=[PRIVATE], closed=["10.255.255.1"]) as names, calling(names, "") as transport:
        results: list[Outcome] = [
            outcome(transport, url_of(canaries["127.0.0.1"], f"{name}.example")) for name in ("open", "closed")
        ]
    told = [
        (one.error, one.hint, one.status_code, one.connect_ms, one.tls_ms, one.first_byte_ms) for one in results
    ]
    assert told == [(ErrorClass.BLOCKED_ADDRESS, None, None, None, None, None)] * 2
