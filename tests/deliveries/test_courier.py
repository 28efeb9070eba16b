"""Access tokens: fetched once for all that wait, kept until shortly before they expire, and never in the way."""

import base64
import contextlib
import ssl
import threading
import time
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from deliveries import courier as courier_module
from deliveries.courier import Courier, send_one
from deliveries.outcome import HINTS, ErrorClass, Outcome
from deliveries.tls import Certificates
from deliveries.transport import Call
from subscriptions.auth import ClientCredentials
from tests import certificates
from tests.certificates import Authority
from tests.deliveries import hostile
from tests.deliveries.calling import LONG_SECONDS, make_transport
from tests.deliveries.hostile import Connection, Listener, listening
from tests.deliveries.issuing import NO_TOKEN, Tokens, a_call, answer, credentials_of, granted, outcome, outcomes


@pytest.fixture
def endpoint() -> Tokens:
    endpoint = Tokens()
    endpoint.may_answer.set()
    return endpoint


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
        contextlib.closing(Courier(make_transport("127.0.0.2/32"))) as courier,
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


@pytest.fixture
def usual(tmp_path: Path) -> Authority:
    return certificates.make_authority(tmp_path, "a usual authority")


@pytest.fixture
def private(tmp_path: Path) -> Authority:
    (tmp_path / "private").mkdir()
    return certificates.make_authority(tmp_path / "private", "a private authority")


def outcome_over_tls(
    endpoint: Tokens, context: ssl.SSLContext, usual: Authority, private: Authority
) -> tuple[Outcome, int]:
    """Return what came of a call that brings a private authority, and how often its token endpoint was called."""
    with (
        contextlib.closing(Courier(make_transport(ca_bundle=usual.bundle))) as courier,
        listening(endpoint, context=context) as issuer,
        listening(hostile.answers(hostile.OK)) as receiver,
    ):
        credentials = ClientCredentials(
            token_url=f"https://localhost:{issuer.port}/", client_id="id", client_secret="secret"
        )
        own = Certificates(authorities=private.bundle.read_text())
        return outcome(courier, a_call(receiver, credentials, certificates=own)), issuer.connections


@pytest.mark.parametrize("is_private", [True, False])
def test_a_token_endpoint_may_have_a_private_authority_or_a_usual_one(
    is_private: bool, tmp_path: Path, endpoint: Tokens, usual: Authority, private: Authority
) -> None:
    context = certificates.server_context(tmp_path, private if is_private else usual)
    result, _ = outcome_over_tls(endpoint, context, usual, private)
    assert result.is_success


def test_what_is_wrong_with_a_token_endpoint_of_a_usual_authority_is_told_whatever_else_is_trusted(
    tmp_path: Path, endpoint: Tokens, usual: Authority, private: Authority
) -> None:
    expired = certificates.server_context(
        tmp_path, usual, begins_in=timedelta(days=-3), lifetime=timedelta(days=-1)
    )
    result, connections = outcome_over_tls(endpoint, expired, usual, private)
    assert (result.error, connections) == (ErrorClass.TLS, 1)
    assert result.hint == NO_TOKEN + "The receiver's certificate has expired. Renew it."


def test_a_token_takes_the_place_of_a_header_of_the_same_name(courier: Courier, endpoint: Tokens) -> None:
    with listening(endpoint) as issuer, listening(hostile.answers(hostile.OK)) as receiver:
        call = a_call(receiver, credentials_of(issuer), headers=["authorization: Basic eDp5", "X-Tag: x"])
        assert outcome(courier, call).is_success
    (request,) = receiver.requests
    assert request.lower().count(b"\r\nauthorization:") == 1
    assert tokens_at(receiver) == ["Bearer token-1"]


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
