"""The signature schemes, both ways: pure functions over bytes.

Two schemes are used side by side. *Body signatures* (`X-Webhook-Signature`) sign an
ingest call and are repeated on each delivery. *Standard Webhooks* signatures
(`webhook-signature`, https://www.standardwebhooks.com) bind the id and the time too.
"""

import base64
import hmac
from collections.abc import Iterable
from hashlib import sha256

SECRET_PREFIX = "whsec_"  # noqa: S105 - names the kind of secret, and is none  # nosec B105
BODY_SIGNATURE_PREFIX = "sha256="


def key_of(secret: str) -> bytes:
    """Return the HMAC key of a secret.

    The base64 part of a `whsec_` secret (Standard Webhooks, section Signature scheme),
    or else the secret's UTF-8 bytes. Raises ValueError if the base64 part is not base64.
    """
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        raise ValueError("The part after whsec_ is not base64.") from None
    if not key:
        raise ValueError("The part after whsec_ is empty.")
    return key


def sign_body(key: bytes, body: bytes) -> str:
    """Return the body signature: `sha256=` and the hex HMAC-SHA256 of the raw body."""
    return BODY_SIGNATURE_PREFIX + hmac.digest(key, body, sha256).hex()


def verify_body(keys: Iterable[bytes], body: bytes, signature: str) -> bool:
    """Return whether `signature` is the body signature under one of `keys`.

    Compares in constant time, over the raw bytes of the body.
    """
    given = signature.encode("utf-8", "surrogateescape")
    valid = False
    for key in keys:
        valid |= hmac.compare_digest(sign_body(key, body).encode(), given)
    return valid


def sign_standard(keys: Iterable[bytes], *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature` header: one `v1,<base64>` per key, separated by a space.

    The signed bytes are `id.timestamp.body`; `timestamp` is in Unix seconds.
    Source: Standard Webhooks 1.0.0, section Signature scheme.
    """
    content = f"{message_id}.{timestamp}.".encode() + body
    return " ".join("v1," + base64.b64encode(hmac.digest(key, content, sha256)).decode() for key in keys)
