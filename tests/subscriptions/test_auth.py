"""The kinds of `auth`: what each takes, and what each refuses in words without the secret."""

import json

import pytest

from subscriptions.addresses import parse_networks
from subscriptions.auth import ApiKeyHeader, Basic, Bearer, ClientCredentials, MutualTLS, RefusedAuth, check, parse
from tests import certificates

OAUTH2 = {
    "type": "oauth2_client_credentials",
    "token_url": "https://login.example.com/token",
    "client_id": "id",
    "client_secret": "top secret",
}


@pytest.fixture
def pair(tmp_path):
    return certificates.make_pair(certificates.make_authority(tmp_path))


@pytest.mark.parametrize(
    ("given", "auth", "headers"),
    [
        (
            {"type": "basic", "username": "Aladdin", "password": "open sesame"},
            Basic(username="Aladdin", password="open sesame"),
            {"Authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},  # the vector of RFC 7617
        ),
        (
            {"type": "basic", "username": "test", "password": "123£"},
            Basic(username="test", password="123£"),
            {"Authorization": "Basic dGVzdDoxMjPCow=="},  # another of its vectors
        ),
        (
            {"type": "bearer", "token": "mF_9.B5f-4.1JqM"},
            Bearer(token="mF_9.B5f-4.1JqM"),
            {"Authorization": "Bearer mF_9.B5f-4.1JqM"},
        ),
        (
            {"type": "api_key", "header": "X-Api-Key", "value": "k 1"},
            ApiKeyHeader(header="X-Api-Key", value="k 1"),
            {"X-Api-Key": "k 1"},
        ),
        (
            OAUTH2,
            ClientCredentials(
                token_url="https://login.example.com/token", client_id="id", client_secret="top secret"
            ),
            {},
        ),
        (
            OAUTH2 | {"scope": "a b"},
            ClientCredentials(
                token_url="https://login.example.com/token",
                client_id="id",
                client_secret="top secret",
                scope="a b",
            ),
            {},
        ),
    ],
)
def test_it_reads_each_kind(given, auth, headers):
    parsed = parse(json.dumps(given))
    assert (parsed, parsed.headers) == (auth, headers)
    check(parsed)


def test_it_takes_a_certificate_with_its_key(pair):
    auth = parse(json.dumps({"type": "mtls", "certificate": pair.certificate, "private_key": pair.private_key}))
    assert auth == MutualTLS(certificate=pair.certificate, private_key=pair.private_key)
    check(auth)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "Object missing required field `type`."),
        ([], "Expected `object`, got `array`."),
        ({"type": "digest"}, "The type is one of basic, bearer, api_key, oauth2_client_credentials, mtls."),
        ({"type": "basic", "username": "u"}, "Object missing required field `password`."),
        ({"type": "bearer", "token": 1}, "Expected `str`, got `int` - at `$.token`."),
        ({"type": "bearer", "token": "a", "scope": ""}, "Object contains unknown field `scope`."),
    ],
)
def test_it_says_why_this_is_no_kind(given, reason):
    with pytest.raises(RefusedAuth) as refused:
        parse(json.dumps(given))
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"type": "basic", "username": "a:b", "password": "secret"}, "The user name has no colon (RFC 7617)."),
        (
            {"type": "basic", "username": "a", "password": "secret\n"},
            "The user name and the password have no control characters.",
        ),
        (
            {"type": "basic", "username": "a", "password": "secret" * 1000},
            "The user name and the password have at most 4096 characters together.",
        ),
        (
            {"type": "bearer", "token": "secret secret"},
            "The token is visible ASCII text without spaces, of at most 4096 characters.",
        ),
        (
            {"type": "bearer", "token": ""},
            "The token is visible ASCII text without spaces, of at most 4096 characters.",
        ),
        (
            {"type": "api_key", "header": "Host", "value": "secret"},
            "The header Host is set by the service.",
        ),
        (
            {"type": "api_key", "header": "X-Key", "value": "secret\r\nX-B: 1"},
            "The value of X-Key is visible ASCII text, with spaces and tabs inside at most, and not empty.",
        ),
        (
            OAUTH2 | {"token_url": "http://127.0.0.1/token"},
            "The token URL: The host is an address that may not be called: only public ones may.",
        ),
        (
            OAUTH2 | {"token_url": "https://user:secret@login.example.com/token"},
            "The token URL: The URL must not contain a user name or password.",
        ),
        (OAUTH2 | {"client_id": "é"}, "client_id is visible ASCII text of at most 4096 characters."),
        (OAUTH2 | {"client_secret": ""}, "client_secret is visible ASCII text of at most 4096 characters."),
        (OAUTH2 | {"scope": "a\nb"}, "The scope is a list of names, separated by spaces."),
        (
            {"type": "mtls", "certificate": "secret", "private_key": "secret"},
            "This is not one certificate or more in PEM.",
        ),
    ],
)
def test_it_says_why_no_call_can_be_made_with_it(given, reason):
    with pytest.raises(RefusedAuth) as refused:
        check(parse(json.dumps(given)))
    assert str(refused.value) == reason
    assert "secret" not in str(refused.value).removeprefix("client_secret")


def test_a_token_url_may_be_where_the_operator_allows_it():
    auth = parse(json.dumps(OAUTH2 | {"token_url": "http://127.0.0.1:9000/token"}))
    check(auth, parse_networks(["127.0.0.0/8"]))


def test_a_key_of_another_certificate_is_refused(tmp_path, pair):
    other = certificates.make_pair(certificates.make_authority(tmp_path))
    with pytest.raises(RefusedAuth) as refused:
        check(MutualTLS(certificate=pair.certificate, private_key=other.private_key))
    assert str(refused.value) == "The private key is not that of the certificate."


def test_no_secret_is_in_what_is_printed_of_it():
    auths = [
        Basic(username="u", password="secret"),
        Bearer(token="secret"),
        parse(json.dumps(OAUTH2)),
        MutualTLS(certificate="secret", private_key="secret"),
    ]
    assert repr(auths) == "[Basic, Bearer, ClientCredentials, MutualTLS]"
