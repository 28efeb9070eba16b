"""Names are looked up beside the calls, once for all that want them, and kept while they are asked for."""

import contextlib
import select
import threading
from dataclasses import replace

import pytest

from deliveries import calls
from deliveries.leases import Target
from deliveries.outcome import ErrorClass
from deliveries.resolver import (
    FORGOTTEN_SECONDS,
    FRESH_SECONDS,
    THREADS,
    UNKNOWN_SECONDS,
    Resolver,
    look_up,
    split_host,
)
from tests.deliveries import hostile
from tests.deliveries.calling import a_call, make_transport, outcomes, url_of
from tests.deliveries.hostile import listening


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


def wait_for(resolver, host, customer=""):
    """Ask until the look-up has ended, woken as the transport is."""
    while (addresses := resolver.addresses_of(host, customer)) is None:
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
        resolver.addresses_of(f"{number}.example", f"customer {number}")
    assert resolver._threads == THREADS


@pytest.fixture
def half_silent():
    """A look-up that finds some names at once, and others not before the test is over."""
    is_over = threading.Event()

    def look_up_unless_silent(host):
        if host.endswith(".silent.example"):
            is_over.wait(10)
        return ["127.0.0.1"]

    yield look_up_unless_silent
    is_over.set()


def test_names_that_nobody_answers_for_hold_up_no_other_customer(half_silent):
    """Not even the same name, which waits for its turn among those of somebody else."""
    with contextlib.closing(Resolver(half_silent)) as resolver:
        for number in range(200):
            assert resolver.addresses_of(f"{number}.silent.example", "one") is None
        assert resolver.addresses_of("a.example", "one") is None
        assert wait_for(resolver, "a.example", "another") == ["127.0.0.1"]


def test_calls_of_one_customer_hold_up_no_other(half_silent):
    silent = [a_call(f"http://{number}.silent.example/", seconds=1) for number in range(200)]
    with listening(hostile.answers(hostile.OK)) as listener:
        call = a_call(url_of(listener, host="localhost"), tag="healthy", seconds=5)
        with contextlib.closing(make_transport(resolver=Resolver(half_silent))) as transport:
            found = outcomes(transport, *(replace(each, customer="one") for each in silent), call)
    assert found["healthy"].is_success
    assert found[""].error == ErrorClass.DNS


def test_a_call_is_that_of_its_subscriptions_customer(make_subscription):
    for tenant in ("", "acme"):
        subscription = make_subscription(tenant=tenant)
        call = calls.build(
            Target.of_subscription(subscription),
            tag=None,
            request_id=subscription.id,
            event_type="a",
            attempt_number=1,
            payload=b"{}",
            at=subscription.created_at,
        )
        assert call.customer == (tenant or str(subscription.id))


def test_what_two_customers_want_is_looked_up_and_leaves_nothing_behind(resolver, names):
    names.may_answer.clear()
    for number in range(THREADS):
        resolver.addresses_of(f"{number}.example", f"customer {number}")
    for customer in ("one", "another"):
        resolver.addresses_of("a.example", customer)
    names.may_answer.set()
    while resolver._wants:
        assert select.select([resolver], [], [], 10)[0]
        resolver.clear_event()
    assert resolver._slots.free == THREADS
    assert resolver._waiting == {}


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
