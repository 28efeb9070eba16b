"""What is kept of an answer, and that a body is sent as it is."""

import gzip
import os

from deliveries.answer import MAX_HEADER_BYTES, MAX_HEADER_LINES, MAX_PIECES, MAX_RESPONSE_BYTES
from deliveries.outcome import ErrorClass
from deliveries.transport import Transport
from tests.deliveries import hostile
from tests.deliveries.calling import outcome, url_of
from tests.deliveries.hostile import Connection, head, listening


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


def test_no_more_headers_are_read_than_a_limit(transport: Transport) -> None:
    """However short: each takes far more memory than its bytes."""
    others = 3  # the status, the length of the body, and the empty line
    for number, error in ((MAX_HEADER_LINES - others, None), (MAX_HEADER_LINES, ErrorClass.PROTOCOL)):
        with listening(hostile.answers(head("200 OK", "Content-Length: 0", *["a:"] * number))) as listener:
            result = outcome(transport, url_of(listener))
        assert result.error == error


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
