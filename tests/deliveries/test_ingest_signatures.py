"""POST /ingest takes only what is signed under the subscription's secret."""

import hashlib
import hmac
import json

import pytest

from tests.conftest import SECRET, ingest_body, signature_of, signed_headers
from tests.deliveries.ingesting import MISSING_SIGNATURE, WRONG_SIGNATURE, assert_refused


def test_it_takes_a_signature_made_with_nothing_but_the_standard_library(post_ingest, make_subscription):
    body = ingest_body(make_subscription(secret="shared secret").id)
    signature = "sha256=" + hmac.new(b"shared secret", body, hashlib.sha256).hexdigest()
    assert post_ingest(body, {"X-Webhook-Signature": signature}).status == 202


@pytest.mark.parametrize("secret", ["x", "x" * 255, "ключ 🔑", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
def test_it_takes_a_signature_under_any_kind_of_secret(post_ingest, make_subscription, secret):
    body = ingest_body(make_subscription(secret=secret).id)
    assert post_ingest(body, signed_headers(body, secret)).status == 202


@pytest.mark.parametrize("headers", [{}, {"X-Webhook-Signature": ""}])
def test_it_answers_401_without_a_signature(post_ingest, make_subscription, headers):
    assert_refused(post_ingest(ingest_body(make_subscription().id), headers), MISSING_SIGNATURE)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: "nonsense",
        lambda body: "sha256=",
        lambda body: signature_of(body).removeprefix("sha256="),
        lambda body: signature_of(body)[:-1],
        lambda body: signature_of(body) + "0",
        lambda body: signature_of(body).replace("sha256", "sha512"),
        lambda body: signature_of(body, "another secret"),
        lambda body: signature_of(body + b" "),
        lambda body: signature_of(json.dumps(json.loads(body), separators=(",", ":")).encode()),
        lambda body: signature_of(b""),
        lambda body: f"{signature_of(body)}, {signature_of(body)}",
        lambda body: "sha256=é\xff",
    ],
)
def test_it_answers_401_for_a_wrong_signature(post_ingest, make_subscription, spoil):
    body = ingest_body(make_subscription().id)
    assert_refused(post_ingest(body, {"X-Webhook-Signature": spoil(body)}), WRONG_SIGNATURE)


def test_it_answers_401_for_the_signature_of_another_subscription(post_ingest, make_subscription):
    make_subscription(secret=SECRET)
    body = ingest_body(make_subscription(secret="its own").id)
    assert_refused(post_ingest(body, signed_headers(body, SECRET)), WRONG_SIGNATURE)
