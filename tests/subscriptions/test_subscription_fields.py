"""The fields with rules of their own: metadata, filter, headers, secret headers, auth, certificates."""

import base64
import json
import os

import pytest
from django.urls import reverse

from subscriptions import auth, secrets
from subscriptions.models import Subscription
from subscriptions.secrets import Purpose
from tests.certificates import make_authority
from tests.expected import REQUEST_ID, invalid
from tests.staff import operator_client

NEW = {"target_url": "https://example.com/hook"}

LONG_METADATA = "The metadata has at most 4096 bytes, with its numbers written out."

BASIC = {"type": "basic", "username": "aladdin", "password": "open sesame"}
BEARER = {"type": "bearer", "token": "the-token-itself"}
KEY = {"type": "api_key", "header": "X-Key", "value": "the-value-itself"}
OAUTH = {
    "type": "oauth2_client_credentials",
    "token_url": "https://example.com/token",
    "client_id": "me",
    "client_secret": "the-client-secret",
}


@pytest.fixture
def create(client_with_key, db):
    """Create a subscription with these fields; returns the answer."""

    def create(**fields):
        return client_with_key.post(
            "/subscriptions", NEW | fields, format="json", headers={"Request-Id": REQUEST_ID}
        )

    return create


@pytest.fixture
def change(client_with_key):
    """Change the only subscription; returns the answer."""

    def change(**fields):
        url = f"/subscriptions/{Subscription.objects.get().id}"
        return client_with_key.patch(url, fields, format="json", headers={"Request-Id": REQUEST_ID})

    return change


def stored(column, purpose):
    """Return what is encrypted in a column of the only subscription."""
    row = Subscription.objects.values("id", column).get()
    return json.loads(secrets.decrypt(bytes(row[column]), row_id=row["id"], purpose=purpose))


@pytest.mark.parametrize("given", [BASIC, BEARER, KEY, OAUTH, OAUTH | {"scope": "a b"}])
def test_it_takes_auth_and_shows_no_more_than_its_type(create, client_with_key, given):
    answer = create(auth=given)
    assert answer.status_code == 201
    assert answer.json()["auth"] == {"type": given["type"]}
    assert stored("auth", Purpose.AUTH) == given
    assert auth.parse(json.dumps(stored("auth", Purpose.AUTH)))
    shown = client_with_key.get("/subscriptions").content + answer.content
    for name in set(given) - {"type", "header", "username", "client_id", "scope"}:
        assert given[name].encode() not in shown


def test_it_changes_auth_as_a_whole_and_removes_it_with_null(create, change):
    create(auth=BASIC)
    assert change(description="other").json()["auth"] == {"type": "basic"}
    assert change(auth=BEARER).json()["auth"] == {"type": "bearer"}
    assert stored("auth", Purpose.AUTH) == BEARER
    assert change(auth=None).json()["auth"] is None
    assert Subscription.objects.get().auth is None


@pytest.mark.parametrize(
    ("given", "code", "detail"),
    [
        ("bearer", "not_an_object", "Give an object with a type, or null."),
        ([], "not_an_object", "Give an object with a type, or null."),
        ({}, "refused_auth", "Object missing required field `type`."),
        (
            {"type": "digest"},
            "refused_auth",
            "The type is one of basic, bearer, api_key, oauth2_client_credentials, mtls.",
        ),
        ({"type": "bearer"}, "refused_auth", "Object missing required field `token`."),
        ({"type": "bearer", "token": 5}, "refused_auth", "Expected `str`, got `int` - at `$.token`."),
        (BASIC | {"realm": "x"}, "refused_auth", "Object contains unknown field `realm`."),
        (BASIC | {"username": "a:b"}, "refused_auth", "The user name has no colon (RFC 7617)."),
        (
            OAUTH | {"token_url": "http://10.0.0.1/"},
            "refused_auth",
            "The token URL: The host is an address that may not be called: only public ones may.",
        ),
    ],
)
def test_it_refuses_auth_that_cannot_be_used(create, given, code, detail):
    answer = create(auth=given)
    assert answer.json() == invalid(("/auth", code, detail))
    assert answer.status_code == 400


def test_it_names_secret_headers_and_never_tells_their_values(create, client_with_key):
    given = {"X-Token": "the-value-itself", "Authorization": "Bearer also-secret"}
    answer = create(secret_headers=given)
    assert answer.json()["secret_header_names"] == ["Authorization", "X-Token"]
    assert "secret_headers" not in answer.json()
    assert stored("secret_headers", Purpose.HEADERS) == given
    shown = client_with_key.get("/subscriptions").content + answer.content
    assert b"itself" not in shown
    assert b"also-secret" not in shown


def test_it_shows_what_no_key_opens_as_unreadable_and_everything_else_as_ever(create, client_with_key, settings):
    create(description="sealed", secret_headers={"X-Token": "t"}, auth={"type": "bearer", "token": "t"})
    settings.SECRET_KEYS = [base64.b64encode(os.urandom(32)).decode()]
    create(description="other", secret_headers={"X-Other": "o"})
    other, sealed = client_with_key.get("/subscriptions").json()["results"]
    assert (other["secret_header_names"], other["auth"]) == (["X-Other"], None)
    assert (sealed["secret_header_names"], sealed["auth"]) == (None, {"type": "unreadable"})
    page = operator_client().get(reverse("admin:subscriptions_subscription_change", args=(sealed["id"],)))
    assert page.status_code == 200
    assert page.content.decode().count("unreadable") == 2


def test_it_changes_secret_headers_as_a_whole_and_removes_them_with_an_empty_object(create, change):
    create(secret_headers={"X-One": "1", "X-Two": "2"})
    assert change(description="other").json()["secret_header_names"] == ["X-One", "X-Two"]
    assert change(secret_headers={"X-Three": "3"}).json()["secret_header_names"] == ["X-Three"]
    assert change(secret_headers={}).json()["secret_header_names"] == []
    assert Subscription.objects.get().secret_headers is None


@pytest.mark.parametrize("field", ["headers", "secret_headers"])
@pytest.mark.parametrize(
    ("given", "pointer", "code", "detail"),
    [
        ([], "", "not_a_dict", 'Expected a dictionary of items but got type "list".'),
        (None, "", "null", "This field may not be null."),
        ({"Host": "x"}, "/Host", "refused_header", "The header Host is set by the service."),
        ({"webhook-id": "x"}, "/webhook-id", "refused_header", "The header webhook-id is set by the service."),
        ({"X-A": ""}, "/X-A", "blank", "This field may not be blank."),
        ({"X-A": ["x"]}, "/X-A", "invalid", "Not a valid string."),
        (
            {"X/A": "x"},
            "/X~1A",
            "refused_header",
            "A header name has letters, digits and !#$%&'*+-.^_`|~ only.",
        ),
        (
            {"X-A": "line\r\nX-B: y"},
            "/X-A",
            "refused_header",
            "The value of X-A is visible ASCII text, with spaces and tabs inside at most, and not empty.",
        ),
        ({f"X-{number}": "x" for number in range(51)}, "", "refused_header", "There are at most 50 headers."),
    ],
)
def test_it_refuses_headers_that_may_not_be_sent(create, field, given, pointer, code, detail):
    assert create(**{field: given}).json() == invalid((f"/{field}{pointer}", code, detail))


def test_it_takes_certificates_to_verify_the_receiver_against(create, change, open_folder):
    pem = make_authority(open_folder).bundle.read_text()
    assert create(ca_certificates=pem).json()["ca_certificates"] == pem
    assert change(ca_certificates="").json()["ca_certificates"] == ""


@pytest.mark.parametrize(
    ("given", "detail"),
    [
        ("nonsense", "This is not one certificate or more in PEM."),
        ("-----BEGIN PRIVATE KEY-----", "This holds a private key: give the certificates alone."),
    ],
)
def test_it_refuses_what_is_no_certificate(create, given, detail):
    assert create(ca_certificates=given).json() == invalid(("/ca_certificates", "refused_certificate", detail))


@pytest.mark.parametrize("given", [None, {}, {"body": {"total": {"$gte": 5}}}, {"$or": [{"event_type": "a"}]}])
def test_it_takes_a_filter(create, change, given):
    assert create(filter=given).json()["filter"] == given
    assert change(filter={"tenant": "acme"}).json()["filter"] == {"tenant": "acme"}
    assert change(filter=None).json()["filter"] is None


@pytest.mark.parametrize(
    ("given", "pointer", "detail"),
    [
        ([], "", "A filter is a JSON object."),
        ({"colour": "red"}, "/colour", "A filter begins with event_type, tenant, body, $and, $or or $not."),
        ({"body": {"a/b": {}}}, "/body/a~1b", "There is no condition here."),
    ],
)
def test_it_says_where_a_filter_is_wrong(create, given, pointer, detail):
    assert create(filter=given).json() == invalid((f"/filter{pointer}", "invalid_filter", detail))


@pytest.mark.parametrize(
    "given", [{}, {"a": None}, {"deep": {"er": [1, 2.5, "ä", True]}}, {"x": "y" * 4088}, {"n": 10**300}]
)
def test_it_keeps_metadata_as_it_is(create, client_with_key, given):
    created = create(metadata=given).json()
    assert created["metadata"] == given
    assert client_with_key.get(f"/subscriptions/{created['id']}").json()["metadata"] == given


@pytest.mark.parametrize(
    ("given", "code", "detail"),
    [
        (None, "null", "This field may not be null."),
        ([], "invalid_metadata", "The metadata is a JSON object."),
        ("text", "invalid_metadata", "The metadata is a JSON object."),
        ({"x": "y" * 4089}, "invalid_metadata", LONG_METADATA),
        ({"x": "ä" * 2045}, "invalid_metadata", LONG_METADATA),
        ({"x": [1e308] * 14}, "invalid_metadata", LONG_METADATA),
        ({"x": ["a\0b"]}, "invalid_metadata", "The metadata has no NUL character in it."),
        ({"a\0b": 1}, "invalid_metadata", "The metadata has no NUL character in it."),
        (json.loads('{"a":' * 21 + "1" + "}" * 21), "invalid_metadata", "The metadata is at most 20 levels deep."),
    ],
)
def test_it_refuses_other_metadata(create, given, code, detail):
    assert create(metadata=given).json() == invalid(("/metadata", code, detail))
