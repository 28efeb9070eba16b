"""Token endpoints that refuse, fail or answer nonsense: the call fails, and says why in words."""

import pytest

from deliveries.courier import Courier
from deliveries.outcome import HINTS, ErrorClass
from tests.deliveries import hostile
from tests.deliveries.hostile import Behaviour, listening
from tests.deliveries.issuing import NO_TOKEN, a_call, answer, credentials_of, granted, outcome, raw_answer

REFUSALS: dict[str, tuple[Behaviour, ErrorClass, str]] = {
    "refuses the client": (
        hostile.answers(answer("401 No", {"error": "invalid_client", "error_description": "top secret"})),
        ErrorClass.HTTP_4XX,
        "It answered 401 with the error invalid_client. Check token_url, client_id, client_secret and scope.",
    ),
    "refuses the scope": (
        hostile.answers(answer("400 No", {"error": "invalid_scope"})),
        ErrorClass.HTTP_4XX,
        "It answered 400 with the error invalid_scope. Check token_url, client_id, client_secret and scope.",
    ),
    "is gone for good": (
        hostile.answers(answer("410 Gone", "<script>", "webhook-delivery: disable", "Retry-After: 999")),
        ErrorClass.HTTP_4XX,
        "It answered 410. Check token_url, client_id, client_secret and scope.",
    ),
    "says an error that is none": (
        hostile.answers(answer("403 No", {"error": "<script>alert(1)</script>"})),
        ErrorClass.HTTP_4XX,
        "It answered 403. Check token_url, client_id, client_secret and scope.",
    ),
    "fails": (
        hostile.answers(answer("503 Oh", {})),
        ErrorClass.HTTP_5XX,
        "It answered 503. Check token_url, client_id, client_secret and scope.",
    ),
    "redirects": (
        hostile.answers(answer("302 Found", {}, "Location: /elsewhere")),
        ErrorClass.REDIRECT,
        "It answered 302. Check token_url, client_id, client_secret and scope.",
    ),
    "resets": (hostile.answers_and_resets(b""), ErrorClass.RESET, HINTS[ErrorClass.RESET]),
    "answers a page": (
        hostile.answers(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"),
        ErrorClass.PROTOCOL,
        "Its answer holds no Bearer token.",
    ),
    "gives no token": (
        hostile.answers(answer("200 OK", {"token_type": "Bearer"})),
        ErrorClass.PROTOCOL,
        "Its answer holds no Bearer token.",
    ),
    "gives another kind of token": (
        hostile.answers(granted(token_type="mac")),
        ErrorClass.PROTOCOL,
        "Its answer holds no Bearer token.",
    ),
    "gives a token with a line break": (
        hostile.answers(granted("a\r\nX-Injected: 1")),
        ErrorClass.PROTOCOL,
        "Its answer holds no Bearer token.",
    ),
    "refuses in another charset": (
        hostile.answers(raw_answer("400 No", '{"error": "ung\u00fcltig"}'.encode("latin-1"))),
        ErrorClass.HTTP_4XX,
        "It answered 400. Check token_url, client_id, client_secret and scope.",
    ),
    "fails in depth": (
        hostile.answers(raw_answer("500 Oh", b'{"a":' + b"[" * 60_000)),
        ErrorClass.HTTP_5XX,
        "It answered 500. Check token_url, client_id, client_secret and scope.",
    ),
    "grants in depth": (
        hostile.answers(raw_answer("200 OK", b'{"a":' + b"[" * 60_000)),
        ErrorClass.PROTOCOL,
        "Its answer holds no Bearer token.",
    ),
    "says nonsense about the time": (
        hostile.answers(granted(expires_in="soon")),
        ErrorClass.PROTOCOL,
        "Its answer holds no Bearer token.",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_call_fails_in_words_when_the_token_endpoint(name: str, courier: Courier) -> None:
    """And nothing of that answer is taken for the receiver's."""
    behaviour, error, hint = REFUSALS[name]
    with listening(behaviour) as issuer, listening(hostile.answers(hostile.OK)) as receiver:
        result = outcome(courier, a_call(receiver, credentials_of(issuer)))
        assert receiver.connections == 0
    assert (result.error, result.hint) == (error, NO_TOKEN + hint)
    assert (result.status_code, result.response_headers, result.response_body) == (None, "", b"")
