"""Access tokens: fetched once for all that wait, kept until shortly before they expire, and never in the way."""

import base64
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from deliveries import courier as courier_module
from deliveries import tokens
from deliveries.courier import Courier, send_one
from deliveries.outcome import HINTS, ErrorClass, Outcome
from deliveries.tls import Certificates
from deliveries.transport import Call
from subscriptions.auth import ClientCredentials
from tests import certificates
from tests.deliveries import hostile
from tests.deliveries.calling import LONG_SECONDS, make_transport
from tests.deliveries.hostile import Behaviour, Connection, Listener, listening

NO_TOKEN = "No access token could be fetched from the token URL. "


def answer(status: str, document: object, *lines: str) -> bytes:
    return raw_answer(status, json.dumps(document).encode(), *lines)


def raw_answer(status: str, body: bytes, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def granted(token: str = "token-1", **more: object) -> bytes:
    return answer("200 OK", {"access_token": token, "token_type": "Bearer", "expires_in": 3600} | more)


@dataclass
class Tokens:
    """A token endpoint that gives out token-1, token-2 and so on."""

    more: dict[str, object] = field(default_factory=dict)
    may_answer: threading.Event = field(default_factory=threading.Event)
    given: int = 0

    def __call__(self, connection: Connection) -> None:
        while True:
            connection.read_request()
            self.may_answer.wait(LONG_SECONDS)
            self.given += 1
            connection.send(granted(f"token-{self.given}", **self.more))


@pytest.fixture
def endpoint() -> Tokens:
    endpoint = Tokens()
    endpoint.may_answer.set()
    return endpoint


@pytest.fixture
def courier() -> Iterator[Courier]:
    with contextlib.closing(Courier(make_transport(), "")) as courier:
        yield courier


def credentials_of(listener: Listener, **fields: str) -> ClientCredentials:
    fields = {"client_id": "id", "client_secret": "top secret"} | fields
    return ClientCredentials(token_url=f"http://127.0.0.1:{listener.port}/token", **fields)


def a_call(receiver: Listener, credentials: ClientCredentials | None, tag: str = "", **fields: object) -> Call:
    usual = {"headers": ["X-Tag: x"], "body": b"{}", "timeout_seconds": LONG_SECONDS}
    url = f"http://127.0.0.1:{receiver.port}/hook"
    return Call(tag=tag, url=url, credentials=credentials, **(usual | fields))


def outcomes(courier: Courier, *calls: Call) -> dict[str, Outcome]:
    for call in calls:
        courier.send(call)
    finished = []
    while courier.in_flight:
        finished += courier.wait(0.05)
    assert len(finished) == len(calls)
    return {one.call.tag: one.outcome for one in finished}


def outcome(courier: Courier, call: Call) -> Outcome:
    return outcomes(courier, call)[call.tag]


def header_of(request: bytes, name: str) -> str | None:
    for line in request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]:
        found, _, value = line.partition(": ")
        if found.lower() == name.lower():
            return value
    return None


def tokens_at(receiver: Listener) -> list[str | None]:
    return [header_of(request, "Authorization") for request in receiver.requests]


def test_a_token_is_asked_for_as_rfc_6749_says_and_sent_as_rfc_6750_says(
    courier: Courier, endpoint: Tokens
) -> None:
    with listening(endpoint) as issuer, listening(hostile.answers(hostile.OK)) as receiver:
        credentials = credentials_of(issuer, client_id="a b", client_secret="c:d&e", scope="x y")
        assert outcome(courier, a_call(receiver, credentials)).is_success
    (request,) = issuer.requests
    assert request.startswith(b"POST /token HTTP/1.1\r\n")
    assert header_of(request, "Content-Type") == "application/x-www-form-urlencoded"
    assert header_of(request, "Authorization") == "Basic " + base64.b64encode(b"a+b:c%3Ad%26e").decode()
    assert parse_qs(request.partition(b"\r\n\r\n")[2].decode()) == {
        "grant_type": ["client_credentials"],
        "scope": ["x y"],
    }
    assert tokens_at(receiver) == ["Bearer token-1"]
    assert header_of(receiver.requests[0], "X-Tag") == "x"


def test_many_calls_wait_for_one_fetch_and_others_do_not(courier: Courier, endpoint: Tokens) -> None:
    endpoint.may_answer.clear()
    with listening(endpoint) as issuer, listening(hostile.answers(hostile.OK)) as receiver:
        for number in range(50):
            courier.send(a_call(receiver, credentials_of(issuer), tag=str(number)))
        assert outcomes_until(courier, a_call(receiver, None, tag="other"))["other"].is_success
        assert len(receiver.requests) == 1
        endpoint.may_answer.set()
        while courier.in_flight:
            assert all(one.outcome.is_success for one in courier.wait(0.05))
        assert len(issuer.requests) == 1
        assert tokens_at(receiver) == [None] + ["Bearer token-1"] * 50


def outcomes_until(courier: Courier, call: Call) -> dict[str, Outcome]:
    """Make one more call beside those that wait, and return what has finished when it has."""
    courier.send(call)
    finished: dict[str, Outcome] = {}
    while call.tag not in finished:
        finished |= {one.call.tag: one.outcome for one in courier.wait(0.05)}
    return finished


def test_a_token_is_kept_and_each_subscription_has_its_own(courier: Courier, endpoint: Tokens) -> None:
    with listening(endpoint) as issuer, listening(hostile.answers(hostile.OK)) as receiver:
        for name in ("one", "two", "one", "two"):
            assert outcome(courier, a_call(receiver, credentials_of(issuer, client_id=name))).is_success
        assert len(issuer.requests) == 2
    assert tokens_at(receiver) == [f"Bearer token-{number}" for number in (1, 2, 1, 2)]


@pytest.mark.parametrize(
    ("expires_in", "lasts"),
    [
        (3600, 3570.0),
        ("3600", 3570.0),
        (61, 31.0),
        (60, 30.0),
        (10, 5.0),
        (0, 0.0),
        (-5, 0.0),
        (1e9, 86400.0),
        (None, 270.0),
    ],
)
def test_a_token_is_used_until_shortly_before_it_expires(expires_in: object, lasts: float) -> None:
    body = granted(expires_in=expires_in).partition(b"\r\n\r\n")[2]
    token = tokens.read(Outcome(error=None, status_code=200, response_ms=1, response_body=body))
    assert token is not None
    assert (token.text, token.lasts_seconds) == ("token-1", lasts)


def test_a_token_that_has_expired_is_fetched_anew(courier: Courier, endpoint: Tokens) -> None:
    endpoint.more = {"expires_in": 0}
    with listening(endpoint) as issuer, listening(hostile.answers(hostile.OK)) as receiver:
        for _ in range(2):
            assert outcome(courier, a_call(receiver, credentials_of(issuer))).is_success
    assert tokens_at(receiver) == ["Bearer token-1", "Bearer token-2"]


def test_a_kept_token_that_the_receiver_refuses_is_fetched_anew_once(courier: Courier, endpoint: Tokens) -> None:
    refused: list[str] = []

    def behave(connection: Connection) -> None:
        while True:
            token = header_of(connection.read_request(), "Authorization")
            connection.send(answer("401 No", {}) if token in refused else hostile.OK)

    with listening(endpoint) as issuer, listening(behave) as receiver:
        assert outcome(courier, a_call(receiver, credentials_of(issuer))).is_success
        refused.append("Bearer token-1")
        calls = [a_call(receiver, credentials_of(issuer), tag=str(number)) for number in range(5)]
        assert all(each.is_success for each in outcomes(courier, *calls).values())
        assert len(issuer.requests) == 2
    assert sorted(map(str, tokens_at(receiver))) == ["Bearer token-1"] * 6 + ["Bearer token-2"] * 5


def test_a_receiver_that_refuses_every_token_gets_two_and_the_call_is_refused(
    courier: Courier, endpoint: Tokens
) -> None:
    with listening(endpoint) as issuer, listening(hostile.answers(answer("401 No", {}))) as receiver:
        first = outcome(courier, a_call(receiver, credentials_of(issuer)))
        assert tokens_at(receiver) == ["Bearer token-1"]  # a fresh one need not be fetched again
        second = outcome(courier, a_call(receiver, credentials_of(issuer)))
        assert tokens_at(receiver)[1:] == ["Bearer token-1", "Bearer token-2"]
    assert [(each.error, each.status_code) for each in (first, second)] == [(ErrorClass.HTTP_4XX, 401)] * 2


def wants_the_body(connection: Connection) -> None:
    """A token endpoint that knows no HTTP Basic."""
    while True:
        form = parse_qs(connection.read_request().partition(b"\r\n\r\n")[2].decode())
        is_known = form.get("client_id") == ["id"] and form.get("client_secret") == ["top secret"]
        connection.send(granted() if is_known else answer("401 No", {"error": "invalid_client"}))


def test_a_server_that_wants_the_proof_in_the_body_gets_it_there(courier: Courier) -> None:
    with listening(wants_the_body) as issuer, listening(hostile.answers(hostile.OK)) as receiver:
        assert outcome(courier, a_call(receiver, credentials_of(issuer))).is_success
        assert [header_of(request, "Authorization") is None for request in issuer.requests] == [False, True]
        courier._tokens.clear()
        assert outcome(courier, a_call(receiver, credentials_of(issuer))).is_success
        assert header_of(issuer.requests[2], "Authorization") is None
        assert len(issuer.requests) == 3


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


def test_a_call_that_waits_for_a_token_ends_at_its_own_limit(
    courier: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "FETCH_SECONDS", 3.0)
    with listening(hostile.says_nothing) as issuer, listening(hostile.answers(hostile.OK)) as receiver:
        limits = {"short": 0.3, "long": LONG_SECONDS}
        calls = [
            a_call(receiver, credentials_of(issuer), tag=tag, timeout_seconds=limit)
            for tag, limit in limits.items()
        ]
        result = outcomes(courier, *calls)
        assert issuer.connections == 1
        assert receiver.connections == 0
    for tag in limits:
        assert (result[tag].error, result[tag].hint) == (ErrorClass.TIMEOUT, NO_TOKEN + HINTS[ErrorClass.TIMEOUT])
    assert result["short"].response_ms < 2500
    assert 2500 < result["long"].response_ms < LONG_SECONDS * 1000


def test_the_fetch_counts_towards_the_limit_of_its_call(courier: Courier, endpoint: Tokens) -> None:
    endpoint.may_answer.clear()
    with listening(endpoint) as issuer, listening(hostile.says_nothing) as receiver:
        started_at = time.monotonic()
        courier.send(a_call(receiver, credentials_of(issuer), timeout_seconds=1.0))
        threading.Timer(0.5, endpoint.may_answer.set).start()
        finished = []
        while courier.in_flight:
            finished += courier.wait(0.05)
        assert time.monotonic() - started_at < LONG_SECONDS / 2
    assert [one.outcome.error for one in finished] == [ErrorClass.TIMEOUT]
    assert finished[0].outcome.response_ms >= 950


def test_a_token_url_on_a_refused_address_is_not_called(endpoint: Tokens) -> None:
    with (
        contextlib.closing(Courier(make_transport("127.0.0.2/32"), "")) as courier,
        listening(endpoint) as canary,
        listening(hostile.answers(hostile.OK), host="127.0.0.2") as receiver,
    ):
        url = f"http://127.0.0.2:{receiver.port}/hook"
        call = Call(
            tag="",
            url=url,
            headers=[],
            body=b"{}",
            timeout_seconds=LONG_SECONDS,
            credentials=credentials_of(canary),
        )
        result = outcome(courier, call)
        assert (canary.connections, receiver.connections) == (0, 0)
    assert result.error == ErrorClass.BLOCKED_ADDRESS
    assert result.hint == NO_TOKEN + HINTS[ErrorClass.BLOCKED_ADDRESS]


@pytest.mark.parametrize("is_private", [True, False])
def test_a_token_endpoint_may_have_a_private_authority_or_a_usual_one(
    is_private: bool, tmp_path: Path, endpoint: Tokens
) -> None:
    (tmp_path / "private").mkdir()
    usual = certificates.make_authority(tmp_path, "a usual authority")
    private = certificates.make_authority(tmp_path / "private", "a private authority")
    context = certificates.server_context(tmp_path, private if is_private else usual)
    with (
        contextlib.closing(Courier(make_transport(ca_bundle=usual.bundle), str(usual.bundle))) as courier,
        listening(endpoint, context=context) as issuer,
        listening(hostile.answers(hostile.OK)) as receiver,
    ):
        credentials = ClientCredentials(
            token_url=f"https://localhost:{issuer.port}/", client_id="id", client_secret="secret"
        )
        own = Certificates(authorities=private.bundle.read_text())
        assert outcome(courier, a_call(receiver, credentials, certificates=own)).is_success


def test_a_call_that_cannot_be_made_is_refused_before_anything_is_fetched(
    courier: Courier, endpoint: Tokens
) -> None:
    with listening(endpoint) as issuer, listening(hostile.answers(hostile.OK)) as receiver:
        with pytest.raises(ValueError, match="call"):
            courier.send(a_call(receiver, credentials_of(issuer), headers=["X-A: 1\r\nX-B: 2"]))
        assert (courier.in_flight, issuer.connections) == (0, 0)


def test_one_call_can_be_waited_for() -> None:
    with listening(hostile.answers(hostile.OK)) as receiver:
        result = send_one(a_call(receiver, None))
    assert (result.error, result.status_code, result.response_body) == (None, 200, b"ok")
    assert result.connect_ms is not None
    assert result.first_byte_ms is not None


def test_one_call_can_be_waited_for_with_its_token(endpoint: Tokens) -> None:
    with listening(endpoint) as issuer, listening(hostile.answers(hostile.OK)) as receiver:
        assert send_one(a_call(receiver, credentials_of(issuer))).is_success
    assert tokens_at(receiver) == ["Bearer token-1"]


def test_no_token_is_in_what_is_printed_of_it() -> None:
    token = tokens.read(
        Outcome(error=None, status_code=200, response_ms=1, response_body=granted().partition(b"\r\n\r\n")[2])
    )
    assert "token-1" not in repr(token)
