"""Make signing secrets and keep them encrypted: the only door to the cipher.

A secret is stored as AES-256-GCM (NIST SP 800-38D) under a key of the ring in
`SECRET_KEYS`: version byte, four bytes that name the key, nonce of 12, ciphertext with
its tag. The row's id and the purpose are authenticated with it, so that a ciphertext
copied to another row, or to another column, cannot be read there.
"""

import base64
import os
import secrets
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from subscriptions.signing import SECRET_PREFIX

MAX_LENGTH = 255
KEY_BYTES = 32
_VERSION = b"\x01"
_KEY_NAME_BYTES = 4
_NONCE_BYTES = 12


class Purpose(StrEnum):
    """What a secret is for; the signing secret's name is empty, as it was the first."""

    SIGNING = ""
    HEADERS = "headers"
    AUTH = "auth"
    ONE_TIME_CODE = "one-time code"  # for the row of the user


class UnreadableSecret(Exception):
    """A stored secret cannot be decrypted with any key in SECRET_KEYS."""


def make() -> str:
    """Return a new signing secret: `whsec_` and the base64 of 32 random bytes."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def hint_of(secret: str) -> str:
    """Return what may be shown of a secret: its last four characters, if it is long enough to spare them."""
    return f"…{secret[-4:]}" if len(secret) >= 16 else "…"


def encrypt(secret: str, *, row_id: UUID, purpose: Purpose = Purpose.SIGNING) -> bytes:
    """Encrypt a secret for the row it will be stored in, under the first key of the ring."""
    name, cipher = next(iter(_ring(tuple(settings.SECRET_KEYS)).items()))
    nonce = os.urandom(_NONCE_BYTES)
    return _VERSION + name + nonce + cipher.encrypt(nonce, secret.encode(), row_id.bytes + purpose.encode())


def decrypt(stored: bytes, *, row_id: UUID, purpose: Purpose = Purpose.SIGNING) -> str:
    """Return the secret that `encrypt` made into `stored` for the same row and purpose.

    Raises UnreadableSecret if its key is not in the ring or the bytes were altered.
    """
    name, rest = stored[1 : 1 + _KEY_NAME_BYTES], stored[1 + _KEY_NAME_BYTES :]
    cipher = _ring(tuple(settings.SECRET_KEYS)).get(name)
    if stored[:1] != _VERSION or cipher is None:
        raise UnreadableSecret("The key of this secret is not in SECRET_KEYS.")
    try:
        context = row_id.bytes + purpose.encode()
        return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], context).decode()
    except (InvalidTag, ValueError):
        raise UnreadableSecret("This secret was altered, or belongs to another row.") from None


def is_current(stored: bytes) -> bool:
    """Return whether a stored secret is encrypted under the first key of the ring."""
    return stored.startswith(_VERSION + next(iter(_ring(tuple(settings.SECRET_KEYS)))))


def parse_key(text: str) -> bytes:
    """Return the 32 bytes of one entry of SECRET_KEYS; raise ValueError if it is not base64 of 32 bytes."""
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("not base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"{len(key)} bytes instead of {KEY_BYTES}")
    return key


@lru_cache(maxsize=4)
def _ring(texts: tuple[str, ...]) -> dict[bytes, AESGCM]:
    if not texts:
        raise ImproperlyConfigured("SECRET_KEYS is empty: signing secrets cannot be encrypted.")
    keys = [parse_key(text) for text in texts]
    return {sha256(key).digest()[:_KEY_NAME_BYTES]: AESGCM(key) for key in keys}
