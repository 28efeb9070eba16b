"""Both signature schemes, against published vectors and an independent verifier."""

import base64
import json
from datetime import UTC, datetime

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from subscriptions import secrets
from subscriptions.signing import key_of, sign_body, sign_standard, verify_body

# Published with the Standard Webhooks libraries, and in the documentation of this service.
VECTOR_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
VECTOR_TIMESTAMP = 1614265330
VECTOR_BODY = b'{"test": 2432232314}'
VECTOR_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

# RFC 4231, test case 2.
RFC_KEY = b"Jefe"
RFC_BODY = b"what do ya want for nothing?"
RFC_SIGNATURE = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def test_it_makes_the_published_standard_signature():
    signature = sign_standard(
        [key_of(VECTOR_SECRET)], message_id=VECTOR_ID, timestamp=VECTOR_TIMESTAMP, body=VECTOR_BODY
    )
    assert signature == VECTOR_SIGNATURE


def test_it_makes_the_published_body_signature():
    assert sign_body(RFC_KEY, RFC_BODY) == RFC_SIGNATURE
    assert verify_body([RFC_KEY], RFC_BODY, RFC_SIGNATURE)


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("plain", b"plain"),
        ("ключ 🔑", "ключ 🔑".encode()),
        (" spaces stay ", b" spaces stay "),
        ("whsec", b"whsec"),
        ("WHSEC_YWJj", b"WHSEC_YWJj"),
        ("whsec_YWJj", b"abc"),
        (VECTOR_SECRET, base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
    ],
)
def test_it_takes_the_key_from_the_base64_part_or_else_from_the_text(secret, key):
    assert key_of(secret) == key


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("whsec_", "The part after whsec_ is empty."),
        ("whsec_YWJ", "The part after whsec_ is not base64."),
        ("whsec_YW Jj", "The part after whsec_ is not base64."),
        ("whsec_not-base64!", "The part after whsec_ is not base64."),
        ("whsec_é", "The part after whsec_ is not base64."),
    ],
)
def test_it_refuses_a_whsec_secret_without_a_key(secret, reason):
    with pytest.raises(ValueError) as refused:
        key_of(secret)
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    "body", [b"{}", b'{"n":1.0}', '{"name":"Zoë 🎉"}'.encode(), b'{"a":1,"a":2}', b' {"b" : [ ] } ']
)
def test_it_satisfies_an_independent_verifier(body):
    secret = secrets.make()
    now = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "0198c5b6-3b7e-7bd1-8f0e-5a8d7a0a1b2c",
        "webhook-timestamp": str(now),
        "webhook-signature": sign_standard(
            [key_of(secret)], message_id="0198c5b6-3b7e-7bd1-8f0e-5a8d7a0a1b2c", timestamp=now, body=body
        ),
    }
    assert standardwebhooks.Webhook(secret).verify(body, headers) == json.loads(body)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secret).verify(body + b" ", headers)


def test_it_signs_with_each_key_newest_first():
    keys = [b"new", b"old"]
    each = [sign_standard([key], message_id="id", timestamp=1, body=b"{}") for key in keys]
    assert sign_standard(keys, message_id="id", timestamp=1, body=b"{}") == " ".join(each)


def test_it_accepts_a_body_signature_under_any_of_the_keys():
    signature = sign_body(b"old", b"{}")
    assert verify_body([b"new", b"old"], b"{}", signature)
    assert verify_body([b"old", b"new"], b"{}", signature)
    assert not verify_body([b"new"], b"{}", signature)
    assert not verify_body([], b"{}", signature)


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "sha256=",
        RFC_SIGNATURE.removeprefix("sha256="),
        RFC_SIGNATURE[:-1],
        RFC_SIGNATURE + "0",
        RFC_SIGNATURE.replace("sha256", "sha1"),
        "sha256=" + "0" * 64,
        " " + RFC_SIGNATURE,
        "sha256=é",
        "sha256=\udce9",
    ],
)
def test_it_refuses_any_other_text_as_a_body_signature(signature):
    assert not verify_body([RFC_KEY], RFC_BODY, signature)


@given(key=st.binary(min_size=1), body=st.binary(), other=st.binary())
def test_it_verifies_what_it_signed_and_nothing_else(key, body, other):
    assert verify_body([key], body, sign_body(key, body))
    assert verify_body([key], other, sign_body(key, body)) == (body == other)
