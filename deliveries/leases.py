"""What a worker holds of a request while it is under its lease."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from threading import Lock
from typing import Any, Self

import msgspec
from cachetools import LRUCache, cached

from deliveries.tls import Certificates
from subscriptions import auth, headers, secrets, signing
from subscriptions.auth import ClientCredentials, MutualTLS
from subscriptions.models import Subscription
from subscriptions.secrets import Purpose

# What is kept of subscriptions' extras, in bytes: the largest have 300 KB, and a change makes another.
KEPT_BYTES = 50_000_000

# A request whose worker was lost this often in a row is failed: it may be what kills them.
# Before its last chance it is a suspect, and suspects are tried one at a time in a worker,
# so that those that only happened to be in flight beside it are not failed with it.
MAX_LOST_IN_A_ROW = 3
LOST_BY_A_SUSPECT = MAX_LOST_IN_A_ROW - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What sending needs of a subscription, and the customer with whom it shares a worker's slots."""

    id: uuid.UUID
    customer: str
    url: str
    stored_secrets: list[bytes]
    retry_schedule: list[int]
    timeout_seconds: int
    stored_headers: str
    stored_secret_headers: bytes | None
    stored_auth: bytes | None
    ca_certificates: str

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """Make a target of the columns that a walk (walks.py) locked."""
        return cls(
            id=row[0],
            url=row[1],
            stored_secrets=row[2],
            retry_schedule=row[3],
            timeout_seconds=row[4],
            customer=row[5],
            stored_headers=row[6],
            stored_secret_headers=row[7],
            stored_auth=row[8],
            ca_certificates=row[9],
        )

    @classmethod
    def of_subscription(cls, subscription: Subscription) -> Self:
        """Make a target of a subscription, for a call outside of the claims."""
        return cls(
            id=subscription.id,
            url=subscription.target_url,
            stored_secrets=subscription.stored_secrets,
            retry_schedule=subscription.retry_schedule,
            timeout_seconds=subscription.timeout_seconds,
            customer=subscription.tenant or str(subscription.id),
            stored_headers=json.dumps(subscription.headers),
            stored_secret_headers=_bytes(subscription.secret_headers),
            stored_auth=_bytes(subscription.auth),
            ca_certificates=subscription.ca_certificates,
        )

    @property
    def signing_keys(self) -> list[bytes]:
        """The HMAC keys, newest first: two during a rotation, by the database's clock.

        Raises UnreadableSecret if the key ring lacks their key.
        """
        return [_signing_key(stored, self.id) for stored in self.stored_secrets]

    @property
    def extras(self) -> "Extras":
        """What this subscription adds to its calls. Raises UnreadableSecret, RefusedHeader or RefusedAuth."""
        return _extras(
            self.id, self.stored_headers, self.stored_secret_headers, self.stored_auth, self.ca_certificates
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Extras:
    """What a subscription adds to its calls: headers, an access token, certificates."""

    headers: Mapping[str, str] = field(repr=False)
    credentials: ClientCredentials | None
    certificates: Certificates | None


class ClaimedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request under our lease: what to send, and what settling has to know."""

    id: uuid.UUID
    target: Target
    event_type: str
    payload: bytes
    received_at: datetime
    attempt_number: int
    trigger: str
    failure_count: int
    lost_count: int
    lease_token: uuid.UUID
    claimed_at: datetime

    @property
    def is_suspect(self) -> bool:
        """Whether one more lost worker would fail this request."""
        return self.lost_count == LOST_BY_A_SUSPECT


def _memory_of(extras: Extras) -> int:
    """Return about how many bytes are kept of extras: what was stored, by which they are found, is as long."""
    return 1_000 + 2 * len(msgspec.json.encode(extras))


@cached(LRUCache(KEPT_BYTES, getsizeof=_memory_of), lock=Lock())
def _extras(
    subscription_id: uuid.UUID,
    stored_headers: str,
    stored_secret_headers: bytes | None,
    stored_auth: bytes | None,
    ca_certificates: str,
) -> Extras:
    given = json.loads(stored_headers)
    if stored_secret_headers is not None:
        text = secrets.decrypt(stored_secret_headers, row_id=subscription_id, purpose=Purpose.HEADERS)
        given = headers.merged(given, json.loads(text))
    # Checked once more, for what did not come through the API. The service's own win.
    sent = {name: value for name, value in given.items() if not headers.is_reserved(name)}
    for name, value in sent.items():
        headers.check_header(name, value)
    kind = None
    if stored_auth is not None:
        kind = auth.parse(secrets.decrypt(stored_auth, row_id=subscription_id, purpose=Purpose.AUTH))
    return Extras(
        headers=sent if kind is None else headers.merged(sent, kind.headers),
        credentials=kind if isinstance(kind, ClientCredentials) else None,
        certificates=_certificates(kind, ca_certificates),
    )


def _certificates(kind: auth.Auth | None, ca_certificates: str) -> Certificates | None:
    authorities = ca_certificates or None
    if isinstance(kind, MutualTLS):
        return Certificates(authorities=authorities, certificate=kind.certificate, private_key=kind.private_key)
    return None if authorities is None else Certificates(authorities=authorities)


def _bytes(stored: bytes | memoryview | None) -> bytes | None:
    return None if stored is None else bytes(stored)


@lru_cache(maxsize=10_000)
def _signing_key(stored_secret: bytes, subscription_id: uuid.UUID) -> bytes:
    return signing.key_of(secrets.decrypt(stored_secret, row_id=subscription_id))
