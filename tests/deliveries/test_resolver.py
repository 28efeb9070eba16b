"""Names are looked up beside the calls, once for all that want them, and kept while they are asked for."""

import contextlib
import select
import threading

import pytest

from deliveries.resolver import (
    FORGOTTEN_SECONDS,
    FRESH_SECONDS,
    THREADS,
    UNKNOWN_SECONDS,
    Resolver,
    look_up,
    split_host,
)


class Names:
    """A name service that counts its questions and can be made to wait."""

    def __init__(self):
        self.known = {"a.example": ["192.0.2.1", "2001:db8::1"]}
        self.asked = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, host):
        self.asked.append(host)
        self.may_answer.wait(10)
        if host not in self.known:
            raise OSError("no such name")
        return self.known[host]


@pytest.fixture
def names():
    return Names()


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def resolver(names, clock):
    with contextlib.closing(Resolver(names, clock=clock)) as resolver:
        yield resolver
        names.may_answer.set()


def wait_for(resolver, host):
    """Ask until the look-up has ended, woken as the transport is."""
    while (addresses := resolver.addresses_of(host)) is None:
        assert select.select([resolver], [], [], 10)[0]
        resolver.clear_event()
    return addresses


def test_it_finds_the_addresses_of_a_name(resolver):
    assert wait_for(resolver, "a.example") == ["192.0.2.1", "2001:db8::1"]


def test_it_returns_no_address_for_a_name_that_is_not_there(resolver):
    assert wait_for(resolver, "b.example") == []


def test_it_looks_a_name_up_once_for_all_that_want_it(resolver, names):
    names.may_answer.clear()
    assert [resolver.addresses_of("a.example") for _ in range(10)] == [None] * 10
    names.may_answer.set()
    wait_for(resolver, "a.example")
    resolver.addresses_of("a.example")
    assert names.asked == ["a.example"]


def test_it_returns_what_it_knows_while_it_looks_again(resolver, names, clock):
    wait_for(resolver, "a.example")
    clock.now += FRESH_SECONDS
    names.known["a.example"] = ["192.0.2.2"]
    names.may_answer.clear()
    assert resolver.addresses_of("a.example") == ["192.0.2.1", "2001:db8::1"]
    names.may_answer.set()
    assert select.select([resolver], [], [], 10)[0]
    assert resolver.addresses_of("a.example") == ["192.0.2.2"]


def test_it_asks_again_for_a_name_that_was_not_there(resolver, names, clock):
    assert wait_for(resolver, "b.example") == []
    names.known["b.example"] = ["192.0.2.3"]
    clock.now += UNKNOWN_SECONDS
    assert resolver.addresses_of("b.example") is None
    assert select.select([resolver], [], [], 10)[0]
    assert resolver.addresses_of("b.example") == ["192.0.2.3"]


def test_it_forgets_names_that_nobody_asks_for(resolver, clock):
    wait_for(resolver, "a.example")
    clock.now += FORGOTTEN_SECONDS + 1
    resolver.addresses_of("b.example")
    assert "a.example" not in resolver._names


def test_it_never_has_more_threads_than_it_may(resolver, names):
    names.may_answer.clear()
    for number in range(200):
        resolver.addresses_of(f"{number}.example")
    assert resolver._threads == THREADS


def test_a_look_up_that_ends_after_the_closing_does_no_harm(names):
    names.may_answer.clear()
    resolver = Resolver(names)
    resolver.addresses_of("a.example")
    resolver.close()
    names.may_answer.set()


def test_the_c_library_is_asked_for_real_names():
    assert "127.0.0.1" in look_up("localhost")
    with pytest.raises(OSError):
        look_up("no-such-name.invalid")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://a.example/x", ("a.example", 443)),
        ("http://a.example", ("a.example", 80)),
        ("http://A.example:8080/", ("a.example", 8080)),
        ("http://127.0.0.1:9/", None),
        ("http://[::1]/", None),
        ("http://0x7f.1/", ("0x7f.1", 80)),
    ],
)
def test_it_knows_which_hosts_need_a_look_up(url, place):
    assert split_host(url) == place
