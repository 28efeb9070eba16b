"""What a subscription adds to its calls: headers, secret headers, and proof of who calls."""

import base64
import contextlib
import json
import logging
import ssl
import string

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliveries import courier, leases
from deliveries.models import WebhookRequest
from deliveries.transport import Call
from subscriptions import headers, secrets
from subscriptions.ids import new_id
from subscriptions.models import Subscription
from subscriptions.secrets import Purpose
from tests import certificates
from tests.conftest import SECRET, signature_of
from tests.deliveries import hostile
from tests.deliveries.calling import LONG_SECONDS, make_transport, outcomes, url_of
from tests.deliveries.hostile import listening


@pytest.fixture
def make_subscription_with(make_subscription):
    """Make a subscription with extra headers, secret headers and auth, as the API stores them."""

    def make(target_url, *, headers=None, secret_headers=None, auth=None, **fields):
        subscription = make_subscription(target_url, headers=headers or {}, **fields)
        for name, value, purpose in (
            ("secret_headers", secret_headers, Purpose.HEADERS),
            ("auth", auth, Purpose.AUTH),
        ):
            if value is not None:
                stored = secrets.encrypt(json.dumps(value), row_id=subscription.id, purpose=purpose)
                Subscription.objects.filter(id=subscription.id).update(**{name: stored})
        subscription.refresh_from_db()
        return subscription

    return make


@pytest.fixture
def headers_of(make_request, receiver, deliver):
    """Deliver one request of a subscription and return the headers that arrived."""

    def headers_of(subscription):
        make_request(subscription, b'{"n": 1}')
        deliver()
        return receiver.arrivals[-1].headers

    return headers_of


def test_extra_headers_are_sent_the_secret_ones_too(make_subscription_with, receiver, headers_of):
    subscription = make_subscription_with(
        receiver.url,
        headers={"X-Team": "billing", "X-Tag": "a\tb c", "Accept": "application/json"},
        secret_headers={"X-Token": "top secret", "x-tag": "the secret one wins"},
    )
    arrived = headers_of(subscription)
    assert (arrived["X-Team"], arrived["X-Token"], arrived["Accept"]) == (
        "billing",
        "top secret",
        "application/json",
    )
    assert arrived["x-tag"] == "the secret one wins"
    assert arrived["X-Webhook-Signature"] == signature_of(b'{"n": 1}')


def test_the_services_own_headers_win(make_subscription_with, receiver, headers_of):
    """The API refuses these; here they have got into the row some other way."""
    reserved = {
        "host": "elsewhere.example",
        "content-length": "1",
        "Transfer-Encoding": "chunked",
        "Connection": "close",
        "CONTENT-TYPE": "text/plain",
        "User-Agent": "somebody else",
        "Webhook-Id": "1",
        "x-webhook-signature": "sha256=00",
        "x-webhook-attempt": "7",
        "Proxy-Authorization": "Basic x",
    }
    subscription = make_subscription_with(receiver.url, headers=reserved, secret_headers=reserved)
    arrived = headers_of(subscription)
    plain = headers_of(make_subscription_with(receiver.url))
    assert arrived["X-Webhook-Signature"] == signature_of(b'{"n": 1}')
    changing = ("webhook-id", "webhook-timestamp", "webhook-signature")
    assert {name: value for name, value in arrived.items() if name not in changing} == {
        name: value for name, value in plain.items() if name not in changing
    }
    assert list(arrived) == list(plain)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "1\r\nX-Injected: 1"},
        {"X-A: 1\r\nX-Injected": "1"},
        {"X-A": "1\n"},
        {"X-A": ""},
        {"X A": "1"},
        {"X-A": "é"},
        {"X-A": 1},
        {"@/etc/passwd": "1"},
    ],
)
def test_a_header_that_would_break_the_request_is_never_sent(
    headers, make_subscription_with, make_request, receiver, deliver, caplog
):
    """The API refuses these; here they have got into the row some other way."""
    request = make_request(
        make_subscription_with(receiver.url, secret_headers=headers | {"X-Token": "top secret"})
    )
    deliver()
    request.refresh_from_db()
    assert (request.error, receiver.arrivals) == ("internal", [])
    assert "top secret" not in caplog.text


@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [
        (
            {"type": "basic", "username": "Aladdin", "password": "open sesame"},
            "Authorization",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ),
        ({"type": "bearer", "token": "mF_9.B5f-4.1JqM"}, "Authorization", "Bearer mF_9.B5f-4.1JqM"),
        ({"type": "api_key", "header": "X-Api-Key", "value": "top secret"}, "X-Api-Key", "top secret"),
    ],
)
def test_auth_is_sent_and_wins_over_an_extra_header(
    auth, name, value, make_subscription_with, receiver, headers_of
):
    subscription = make_subscription_with(receiver.url, secret_headers={name.lower(): "mine"}, auth=auth)
    arrived = headers_of(subscription)
    assert [arrived[each] for each in arrived if each.lower() == name.lower()] == [value]


def test_a_client_certificate_is_shown_and_a_private_authority_trusted(
    make_subscription_with, make_request, deliver, tmp_path
):
    authority = certificates.make_authority(tmp_path)
    context = certificates.server_context(tmp_path, authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.bundle)
    pair = certificates.make_pair(authority, host="the service")
    auth = {"type": "mtls", "certificate": pair.certificate, "private_key": pair.private_key}
    with listening(hostile.answers(hostile.OK), context=context) as listener:
        url = f"https://localhost:{listener.port}/hook"
        known = make_subscription_with(url, auth=auth, ca_certificates=authority.bundle.read_text())
        unknown = make_subscription_with(url, ca_certificates=authority.bundle.read_text())
        distrustful = make_subscription_with(url, auth=auth)
        requests = [make_request(each) for each in (known, unknown, distrustful)]
        deliver()
        assert len(listener.requests) == 1
    for request in requests:
        request.refresh_from_db()
    assert [request.error for request in requests] == ["", "tls", "tls"]
    hints = [request.attempts.get().hint for request in requests]
    assert hints[:2] == [None, "The receiver asks for a client certificate: auth of type mtls."]
    assert hints[2].endswith("Give that authority's certificate in ca_certificates.")


def test_no_log_tells_a_secret(make_subscription_with, make_request, receiver, deliver, caplog):
    subscription = make_subscription_with(
        receiver.url,
        secret_headers={"X-Token": "top secret"},
        auth={"type": "basic", "username": "me", "password": "more secret"},
    )
    make_request(subscription)
    with caplog.at_level(logging.DEBUG):
        deliver()
    logged = json.dumps([{name: str(value) for name, value in vars(each).items()} for each in caplog.records])
    encoded = base64.b64encode(b"me:more secret").decode()
    assert [text for text in ("top secret", "more secret", encoded, SECRET) if text in logged] == []
    assert receiver.arrivals[0].headers["Authorization"] == f"Basic {encoded}"


def test_auth_that_cannot_be_read_stops_no_other_request(make_subscription_with, make_request, receiver, deliver):
    broken = make_subscription_with(receiver.url)
    Subscription.objects.filter(id=broken.id).update(auth=b"not what encrypt() made")
    requests = [make_request(broken), make_request(make_subscription_with(receiver.url))]
    deliver()
    assert [WebhookRequest.objects.get(id=request.id).error for request in requests] == ["internal", ""]


def test_every_call_is_made_by_the_settings(settings, tmp_path):
    """One courier for deliveries, token fetches and test sends."""
    settings.CA_BUNDLE = str(certificates.make_authority(tmp_path).bundle)
    settings.ALLOWED_NETWORKS = ["127.0.0.0/8"]
    opened = courier.open_courier()
    try:
        assert opened._transport._ca_bundle == settings.CA_BUNDLE
        assert [str(each) for each in opened._transport._allowed_networks] == ["127.0.0.0/8"]
    finally:
        opened.close()


NAMES = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=30)
VALUES = st.text([chr(code) for code in range(0x20, 0x7F)] + ["\t"], min_size=1, max_size=60).map(str.strip)
HEADERS = st.dictionaries(NAMES, VALUES, max_size=6)


@given(HEADERS)
@hypothesis.settings(max_examples=100, deadline=None)
def test_any_headers_that_are_taken_arrive_as_they_were_given(wire, given_headers):
    """And nothing else of the request changes by them."""
    transport, listener = wire
    try:
        headers.check_headers(given_headers)
    except headers.RefusedHeader:
        return
    lines = [f"{name}: {value}" for name, value in given_headers.items()]
    own = ["Content-Type: application/json", "X-Webhook-Event: a.b"]
    call = Call(tag="", url=url_of(listener), headers=[*lines, *own], body=b"{}", timeout_seconds=LONG_SECONDS)
    assert outcomes(transport, call)[""].is_success
    head, _, body = listener.requests[-1].partition(b"\r\n\r\n")
    request_line, *arrived = head.decode().split("\r\n")
    assert (request_line, body) == ("POST /hook HTTP/1.1", b"{}")
    ours = [f"Host: 127.0.0.1:{listener.port}", "User-Agent: tests", "Content-Length: 2", *own]
    accepts = [] if any(name.lower() == "accept" for name in given_headers) else ["Accept: */*"]
    assert sorted(arrived) == sorted([*lines, *ours, *accepts])


@pytest.fixture(scope="module")
def wire():
    """A transport and a listener for many examples."""
    with (
        listening(hostile.answers(hostile.OK)) as listener,
        contextlib.closing(make_transport()) as transport,
    ):
        yield transport, listener


def test_what_a_process_keeps_of_extras_is_bounded_in_bytes():
    for number in range(500):
        leases._extras(new_id(), "{}", None, None, f"{number:065536}")
    kept = leases._extras.cache
    assert kept.currsize <= leases.KEPT_BYTES
    assert len(kept) < 400
