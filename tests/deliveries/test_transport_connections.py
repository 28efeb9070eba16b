"""Connections that serve call after call, and those that the receiver has closed."""

import contextlib
from collections.abc import Callable

import pytest

from deliveries.handle import NAMES_KEPT_SECONDS, _resolve_option
from deliveries.outcome import ErrorClass
from deliveries.resolver import Resolver
from deliveries.transport import Transport
from tests.deliveries import hostile
from tests.deliveries.calling import a_call, make_transport, outcome, outcomes, url_of
from tests.deliveries.hostile import Connection, ends_the_second_request, head, listening, reads_and


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


def test_a_dead_connection_does_not_have_the_name_looked_up_once_more() -> None:
    """Nobody but the resolver knows this name."""
    resolver = Resolver(lambda host: ["127.0.0.1"])
    with (
        contextlib.closing(make_transport(resolver=resolver)) as transport,
        listening(hostile.answers_and_closes(hostile.OK)) as listener,
    ):
        for count in range(1, 4):
            assert outcome(transport, url_of(listener, host="name.invalid")).is_success
            listener.wait_for_closed(count)


def test_libcurl_is_not_told_addresses_for_ever() -> None:
    """It would look at those of all hosts that were ever called, after each call: for 20,000 it takes 0.6 ms."""
    told = _resolve_option("https://a.example/", ["192.0.2.1", "2001:db8::1"])
    assert told == ["+a.example:443:192.0.2.1,[2001:db8::1]"]


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


def test_a_request_that_was_read_long_ago_has_no_name_looked_up_to_be_sent_again() -> None:
    """libcurl knows the addresses no more by then, and would ask the receiver's name servers itself."""

    def closes_late(connection: Connection) -> None:
        connection.listener.is_over.wait(NAMES_KEPT_SECONDS + 0.2)
        connection.close()

    with (
        contextlib.closing(make_transport(resolver=Resolver(lambda host: ["127.0.0.1"]))) as transport,
        listening(ends_the_second_request(reads_and(closes_late))) as listener,
    ):
        url = url_of(listener, host="name.invalid")
        assert [outcome(transport, url).error for _ in range(2)] == [None, ErrorClass.RESET]
        assert (listener.connections, len(listener.requests)) == (1, 2)


def test_a_request_is_not_sent_again_on_another_kept_connection(transport: Transport) -> None:
    with listening(ends_the_second_request(reads_and(Connection.close))) as listener:
        calls = [a_call(url_of(listener), tag=str(number)) for number in range(2)]
        assert all(result.is_success for result in outcomes(transport, *calls).values())
        errors = sorted(str(result.error) for result in outcomes(transport, *calls).values())
        assert errors == ["None", "reset"]
        assert (listener.connections, len(listener.requests)) == (2, 4)
