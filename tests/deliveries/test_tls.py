"""TLS with receivers: whom the service trusts, whom it says it calls, and what it says when that fails."""

import contextlib
import datetime
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from deliveries import handle, tls, tokens
from deliveries import transport as transport_module
from deliveries.models import DeliveryAttempt
from deliveries.outcome import HINTS, ErrorClass, Outcome
from deliveries.resolver import Resolver
from deliveries.tls import CLOSED_AFTER_HANDSHAKE_HINT, Certificates
from deliveries.transport import Call, Transport
from tests import certificates
from tests.certificates import Authority
from tests.deliveries import hostile
from tests.deliveries.calling import CALL_FROM_A_FRESH_PROCESS, ROOT, make_transport, outcomes
from tests.deliveries.hostile import Listener, listening
from tests.deliveries.names import name_server

OVER = datetime.timedelta(days=-1)

# The group for Diffie-Hellman of RFC 3526, section 3, as a server reads it.
GROUP = """
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA///////////JD9qiIWjCNMTGYouA3BzRKQJOCIpnzHQCC76mOxOb
IlFKCHmONATd75UZs806QxswKwpt8l8UN0/hNW1tUcJF5IW1dmJefsb0TELppjft
awv/XLb0Brft7jhr+1qJn6WunyQRfEsf5kkoZlHs5Fs9wgB8uKFjvwWY2kg2HFXT
mmkWP6j9JM9fg2VdI9yjrZYcYvNWIIVSu57VKQdwlpZtZww1Tkq8mATxdGwIyhgh
fDKQXkYuNs474553LBgOhgObJ4Oi7Aeij7XFXfBvTFLJ3ivL9pVYFxg5lUl86pVq
5RXSJhiY+gUQFXKOWoqsqmj//////////wIBAg==
-----END DH PARAMETERS-----
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return certificates.make_authority(tmp_path)


@pytest.fixture
def other_authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "other"
    folder.mkdir()
    return certificates.make_authority(folder, "another authority of the tests")


@pytest.fixture
def transport(authority: Authority) -> Iterator[Transport]:
    """A transport that trusts the authority."""
    with contextlib.closing(make_transport(ca_bundle=authority.bundle)) as transport:
        yield transport


@pytest.fixture
def context(tmp_path: Path, authority: Authority) -> ssl.SSLContext:
    """What a server for localhost needs, with a certificate of the authority."""
    return certificates.server_context(tmp_path, authority)


@pytest.fixture
def wants_clients(context: ssl.SSLContext, authority: Authority) -> ssl.SSLContext:
    """A server that takes only clients with a certificate of the authority."""
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.bundle)
    return context


def outcome(
    transport: Transport, listener: Listener, own: Certificates | None = None, *, host: str = "localhost"
) -> Outcome:
    url = f"https://{host}:{listener.port}/hook"
    call = Call(tag="", url=url, headers=[], body=b"{}", timeout_seconds=10, certificates=own)
    return outcomes(transport, call)[""]


def of_pair(pair: certificates.Pair) -> Certificates:
    return Certificates(certificate=pair.certificate, private_key=pair.private_key)


def test_a_trusted_certificate_is_accepted_and_the_name_is_told(
    transport: Transport, context: ssl.SSLContext
) -> None:
    asked_for = []
    context.sni_callback = lambda connection, name, context: asked_for.append(name)
    with listening(hostile.answers(hostile.OK), context=context) as listener:
        results = [outcome(transport, listener) for _ in range(3)]
        assert [result.error for result in results] == [None] * 3
        assert listener.connections == 1
    assert asked_for == ["localhost"]
    assert results[0].tls_ms is not None
    assert results[1].tls_ms is None


def test_the_name_is_told_without_the_dot_that_ends_it(tmp_path: Path, authority: Authority) -> None:
    """RFC 6066, section 3."""
    context = certificates.server_context(tmp_path, authority, host="a.example")
    asked_for = []
    context.sni_callback = lambda connection, name, context: asked_for.append(name)
    with (
        listening(hostile.answers(hostile.OK), context=context) as listener,
        name_server(a=["127.0.0.1"]) as names,
        contextlib.closing(
            make_transport(ca_bundle=authority.bundle, resolver=Resolver(names.look_up))
        ) as transport,
    ):
        assert outcome(transport, listener, host="a.example.").is_success
    assert asked_for == ["a.example"]


def test_no_name_is_told_to_an_address(transport: Transport, context: ssl.SSLContext) -> None:
    """RFC 6066, section 3: an address is no server name."""
    asked_for = []
    context.sni_callback = lambda connection, name, context: asked_for.append(name)
    with listening(hostile.answers(hostile.OK), context=context) as listener:
        assert outcome(transport, listener, host="127.0.0.1").error == ErrorClass.TLS
    assert asked_for == [None]


FAULTS = {
    "expired": "The receiver's certificate has expired. Renew it.",
    "not valid yet": "The receiver's certificate is not valid yet. Check its dates.",
    "self-signed": (
        "The receiver's certificate is self-signed. Use one from a public authority, or give this one in "
        "ca_certificates."
    ),
    "for another name": "The receiver's certificate is for another host name.",
    "by an unknown authority": (
        "The issuer of the receiver's certificate is not known. Have the receiver send its intermediate "
        "certificates too, or give the certificate of a private authority in ca_certificates."
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_certificate_is_refused_in_words_that_is(
    fault: str, tmp_path: Path, authority: Authority, other_authority: Authority, transport: Transport
) -> None:
    issuers = {"self-signed": None, "by an unknown authority": other_authority}
    context = certificates.server_context(
        tmp_path,
        issuers.get(fault, authority),
        host="elsewhere.example" if fault == "for another name" else "localhost",
        lifetime=OVER if fault == "expired" else datetime.timedelta(days=9),
        begins_in=datetime.timedelta(days=7 if fault == "not valid yet" else -3),
    )
    with listening(hostile.answers(hostile.OK), context=context) as listener:
        result = outcome(transport, listener)
    assert (result.error, result.hint) == (ErrorClass.TLS, FAULTS[fault])
    assert listener.requests == []


def test_a_receiver_without_tls_is_a_tls_failure_when_called_with_it(transport: Transport) -> None:
    with listening(lambda connection: connection.send(hostile.OK)) as listener:
        result = outcome(transport, listener)
    hint = "There is no TLS at this port. Check the port, or whether the URL begins with http."
    assert (result.error, result.hint) == (ErrorClass.TLS, hint)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_a_receiver_that_knows_only_old_versions_is_not_called(
    transport: Transport, context: ssl.SSLContext
) -> None:
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with listening(hostile.answers(hostile.OK), context=context) as listener:
        result = outcome(transport, listener)
    hint = "The receiver knows no TLS version of today: 1.2 or 1.3 is needed."
    assert (result.error, result.hint, listener.requests) == (ErrorClass.TLS, hint, [])


def test_a_receiver_does_not_choose_a_key_exchange_that_takes_long(
    transport: Transport, tmp_path: Path, authority: Authority
) -> None:
    """With Diffie-Hellman over a prime of its own, one handshake may hold up all other calls for half a second."""
    key = rsa.generate_private_key(65537, 2048)
    context = certificates.server_context(tmp_path, authority, key=key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    (tmp_path / "group.pem").write_text(GROUP)
    context.load_dh_params(tmp_path / "group.pem")
    answers = []
    for ciphers in ("kDHE", "kDHE:kECDHE"):
        context.set_ciphers(ciphers)
        with listening(hostile.answers(hostile.OK), context=context) as listener:
            answers.append(outcome(transport, listener))
    hint = (
        "The receiver broke the TLS handshake off. It may ask for a client certificate, or know no TLS version "
        "or key exchange (ECDHE) of today."
    )
    assert [(each.error, each.hint) for each in answers] == [(ErrorClass.TLS, hint), (None, None)]


# Authorities of a subscription's own


def test_a_private_authority_is_trusted_by_the_calls_that_bring_it(
    transport: Transport, tmp_path: Path, other_authority: Authority
) -> None:
    context = certificates.server_context(tmp_path, other_authority)
    own = Certificates(authorities=other_authority.bundle.read_text())
    with listening(hostile.answers(hostile.OK), context=context) as listener:
        assert outcome(transport, listener, own).is_success


def test_a_private_authority_is_trusted_in_place_of_the_usual_ones(
    transport: Transport, context: ssl.SSLContext, other_authority: Authority
) -> None:
    own = Certificates(authorities=other_authority.bundle.read_text())
    with listening(hostile.answers(hostile.OK), context=context) as listener:
        assert outcome(transport, listener, own).error == ErrorClass.TLS


@pytest.mark.parametrize("behaviour", [hostile.answers(hostile.OK), hostile.answers_and_closes(hostile.LAST_OK)])
def test_what_one_subscription_trusts_is_not_trusted_for_another(
    behaviour: hostile.Behaviour, transport: Transport, tmp_path: Path, other_authority: Authority
) -> None:
    """Neither an open connection nor a TLS session of one is used for another."""
    context = certificates.server_context(tmp_path, other_authority)
    own = Certificates(authorities=other_authority.bundle.read_text())
    with listening(behaviour, context=context) as listener:
        errors = [outcome(transport, listener, each).error for each in (own, None, own, None)]
        assert len(listener.requests) == 2
    assert errors == [None, ErrorClass.TLS, None, ErrorClass.TLS]


def test_a_handshake_that_takes_long_to_compute_ends_the_call_that_brings_the_authority(
    transport: Transport,
    context: ssl.SSLContext,
    tmp_path: Path,
    other_authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All other calls wait for it; a failure each time has the circuit breaker keep it rare."""
    for module in (handle, transport_module):
        monkeypatch.setattr(module, "MAX_HANDSHAKE_STEP_SECONDS", 0.0)
    private = certificates.server_context(tmp_path, other_authority)
    own = Certificates(authorities=other_authority.bundle.read_text())
    with (
        listening(hostile.answers(hostile.OK), context=private) as slow,
        listening(hostile.answers(hostile.OK), context=context) as usual,
    ):
        result = outcome(transport, slow, own)
        assert (result.error, result.hint, slow.requests) == (ErrorClass.TLS, tls.SLOW_HINT, [])
        assert outcome(transport, usual).is_success


def test_authorities_that_are_none_are_said_to_be_so(transport: Transport, context: ssl.SSLContext) -> None:
    with listening(hostile.answers(hostile.OK), context=context) as listener:
        result = outcome(transport, listener, Certificates(authorities="nonsense"))
    hint = "The subscription's ca_certificates cannot be used. Give them again."
    assert (result.error, result.hint) == (ErrorClass.TLS, hint)


# Certificates of a subscription's own


def test_a_client_certificate_is_shown_to_who_asks_for_it(
    transport: Transport, wants_clients: ssl.SSLContext, authority: Authority
) -> None:
    pair = certificates.make_pair(authority, host="the service")
    with listening(hostile.answers(hostile.OK), context=wants_clients) as listener:
        assert [outcome(transport, listener, of_pair(pair)).error for _ in range(2)] == [None, None]
        assert listener.connections == 1


def names_its_client(seen: list[str], answer: bytes) -> hostile.Behaviour:
    """Note the name in the client's certificate for each request, and answer it; close if the answer says so."""

    def behave(connection: hostile.Connection) -> None:
        assert isinstance(connection.stream, ssl.SSLSocket)
        while True:
            connection.read_request()
            certificate = connection.stream.getpeercert() or {}
            seen.append(str(dict(certificate["subject"][0])["commonName"]))  # type: ignore[arg-type,call-overload]
            connection.send(answer)
            if answer == hostile.LAST_OK:
                return

    return behave


@pytest.mark.parametrize("answer", [hostile.OK, hostile.LAST_OK], ids=["a connection", "a TLS session"])
def test_a_connection_of_one_client_is_not_used_for_another(
    answer: bytes, transport: Transport, wants_clients: ssl.SSLContext, authority: Authority
) -> None:
    """Neither is a TLS session, by which the receiver would take the one for the other."""
    names = ["one", "two"]
    own = {name: of_pair(certificates.make_pair(authority, host=name)) for name in names}
    seen: list[str] = []
    with listening(names_its_client(seen, answer), context=wants_clients) as listener:
        for name in names * 3:
            assert outcome(transport, listener, own[name]).is_success
        assert outcome(transport, listener).error == ErrorClass.TLS
    assert seen == names * 3


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
def test_a_receiver_that_asks_for_a_client_certificate_is_told_from_other_failures(
    version: ssl.TLSVersion, transport: Transport, wants_clients: ssl.SSLContext
) -> None:
    """With TLS 1.3 the refusal comes after the handshake, in place of an answer."""
    wants_clients.maximum_version = version
    with listening(hostile.answers(hostile.OK), context=wants_clients) as listener:
        result = outcome(transport, listener)
    assert result.error == ErrorClass.TLS
    assert result.hint is not None
    assert "client certificate" in result.hint
    assert listener.requests == []


def test_a_receiver_that_closes_right_after_the_handshake_may_want_a_client_certificate(
    transport: Transport, context: ssl.SSLContext
) -> None:
    """The receiver's alert can get lost when it closes with the request unread."""
    with listening(hostile.closes_at_once, context=context) as listener:
        result = outcome(transport, listener)
    assert (result.error, result.hint) == (ErrorClass.RESET, CLOSED_AFTER_HANDSHAKE_HINT)


def test_a_client_certificate_that_the_receiver_does_not_trust_is_said_to_be_so(
    transport: Transport, wants_clients: ssl.SSLContext, other_authority: Authority
) -> None:
    with listening(hostile.answers(hostile.OK), context=wants_clients) as listener:
        result = outcome(transport, listener, of_pair(certificates.make_pair(other_authority)))
    hint = (
        "The receiver did not accept the client certificate. Check that it is valid, and issued by an authority "
        "that the receiver trusts."
    )
    assert (result.error, result.hint) == (ErrorClass.TLS, hint)


@pytest.mark.parametrize("fault", ["certificate", "key"])
def test_a_client_certificate_that_cannot_be_used_is_said_to_be_so(
    fault: str, transport: Transport, wants_clients: ssl.SSLContext, authority: Authority
) -> None:
    one, two = certificates.make_pair(authority), certificates.make_pair(authority)
    own = Certificates(
        certificate="nonsense" if fault == "certificate" else one.certificate, private_key=two.private_key
    )
    with listening(hostile.answers(hostile.OK), context=wants_clients) as listener:
        result = outcome(transport, listener, own)
    hint = "The subscription's client certificate or its key cannot be used. Give them again."
    assert (result.error, result.hint) == (ErrorClass.TLS, hint)


def test_a_private_key_is_not_in_what_is_printed(authority: Authority) -> None:
    pair = certificates.make_pair(authority)
    assert "PRIVATE KEY" not in repr(of_pair(pair))


def test_a_hint_fits_where_it_is_stored() -> None:
    field = DeliveryAttempt._meta.get_field("specific_hint")
    longest = max([*tls._HINTS.values(), *HINTS.values(), CLOSED_AFTER_HANDSHAKE_HINT], key=len)
    failed = Outcome(error=ErrorClass.TLS, hint=longest, response_ms=1)
    assert len(str(tokens.failure(failed, 1).hint)) <= field.max_length


def test_a_port_without_a_listener_is_no_tls_failure(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    call = Call(tag="", url=f"https://localhost:{port}/", headers=[], body=b"", timeout_seconds=10)
    assert outcomes(transport, call)[""].error == ErrorClass.CONNECT


# The environment


def test_the_environment_has_no_say_in_whom_to_trust_and_gets_no_keys(
    tmp_path: Path, authority: Authority, context: ssl.SSLContext
) -> None:
    key_log = tmp_path / "keys.log"
    environment = {"SSL_CERT_FILE": str(authority.bundle), "SSL_CERT_DIR": str(tmp_path)}
    environment |= {"CURL_CA_BUNDLE": str(authority.bundle), "SSLKEYLOGFILE": str(key_log)}
    with listening(hostile.answers(hostile.OK), context=context) as listener:
        command = [sys.executable, "-c", CALL_FROM_A_FRESH_PROCESS, f"https://localhost:{listener.port}/"]
        process = subprocess.run(
            command, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, timeout=60
        )
    assert (process.stdout, process.stderr) == ("tls\n", "")
    assert not key_log.exists()


def test_the_usual_authorities_are_those_of_certifi() -> None:
    with contextlib.closing(make_transport()) as transport:
        assert transport._ca_bundle == certifi.where()
