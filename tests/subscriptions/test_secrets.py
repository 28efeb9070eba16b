import base64
import uuid

import pytest
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given
from hypothesis import strategies as st

from subscriptions import secrets
from subscriptions.secrets import UnreadableSecret

ROW = uuid.UUID("0198c5b6-3b7e-7bd1-8f0e-5a8d7a0a1b2c")
OTHER_ROW = uuid.UUID("0198c5b6-3b7e-7bd1-8f0e-5a8d7a0a1b2d")


def ring_key(text: str) -> str:
    """Return an entry of SECRET_KEYS: base64 of 32 bytes."""
    return base64.b64encode(text.ljust(32).encode()).decode()


def test_it_makes_a_new_secret_of_32_random_bytes_each_time():
    made = [secrets.make() for _ in range(3)]
    assert len(set(made)) == 3
    assert {secret[:6] for secret in made} == {"whsec_"}
    assert {len(base64.b64decode(secret[6:], validate=True)) for secret in made} == {32}


@pytest.mark.parametrize(
    ("secret", "hint"),
    [
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "…LaSw"),
        ("x" * 12 + "tail", "…tail"),
        ("x" * 11 + "tail", "…"),
        ("s", "…"),
    ],
)
def test_it_shows_the_end_of_a_secret_only_if_it_is_long_enough(secret, hint):
    assert secrets.hint_of(secret) == hint


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=secrets.MAX_LENGTH))
def test_it_reads_what_it_encrypted(secret):
    assert secrets.decrypt(secrets.encrypt(secret, row_id=ROW), row_id=ROW) == secret


def test_it_encrypts_the_same_secret_differently_each_time_and_never_shows_it():
    stored = {secrets.encrypt("the very secret", row_id=ROW) for _ in range(3)}
    assert len(stored) == 3
    assert not any(b"secret" in one for one in stored)


def test_it_cannot_read_a_secret_that_was_copied_to_another_row():
    stored = secrets.encrypt("secret", row_id=ROW)
    with pytest.raises(UnreadableSecret):
        secrets.decrypt(stored, row_id=OTHER_ROW)


@pytest.mark.parametrize("position", [0, 1, 5, 17, -1])
def test_it_cannot_read_a_secret_that_was_altered(position):
    # The version byte, the name of the key, the nonce, the ciphertext, the tag.
    altered = bytearray(secrets.encrypt("secret", row_id=ROW))
    altered[position] ^= 1
    with pytest.raises(UnreadableSecret):
        secrets.decrypt(bytes(altered), row_id=ROW)


@pytest.mark.parametrize("length", [0, 1, 4, 5, 6, 12, 17, 18, 33])
def test_it_cannot_read_a_secret_that_was_cut(length):
    with pytest.raises(UnreadableSecret):
        secrets.decrypt(secrets.encrypt("secret", row_id=ROW)[:length], row_id=ROW)


def test_it_encrypts_with_the_first_key_of_the_ring_and_reads_with_all(settings):
    settings.SECRET_KEYS = [ring_key("old")]
    under_old = secrets.encrypt("made before", row_id=ROW)

    settings.SECRET_KEYS = [ring_key("new"), ring_key("old")]
    assert secrets.decrypt(under_old, row_id=ROW) == "made before"
    under_new = secrets.encrypt("made after", row_id=ROW)

    settings.SECRET_KEYS = [ring_key("new")]
    assert secrets.decrypt(under_new, row_id=ROW) == "made after"
    with pytest.raises(UnreadableSecret):
        secrets.decrypt(under_old, row_id=ROW)


def test_it_refuses_to_work_without_a_ring(settings):
    settings.SECRET_KEYS = []
    with pytest.raises(ImproperlyConfigured):
        secrets.encrypt("secret", row_id=ROW)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not base64!", "not base64"),
        ("c2hvcnQ", "not base64"),
        ("schlüssel", "not base64"),
        ("", "0 bytes instead of 32"),
        ("c2hvcnQ=", "5 bytes instead of 32"),
        (base64.b64encode(bytes(33)).decode(), "33 bytes instead of 32"),
    ],
)
def test_it_says_what_is_wrong_with_a_key_of_the_ring(text, reason):
    with pytest.raises(ValueError) as refused:
        secrets.parse_key(text)
    assert str(refused.value) == reason


def test_it_takes_base64_of_32_bytes_as_a_key_of_the_ring():
    assert secrets.parse_key(ring_key("good")) == b"good".ljust(32)
