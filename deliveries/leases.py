"""What a worker holds of a request while it is under its lease."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Self

from subscriptions import secrets, signing

# A request whose worker was lost this often in a row is failed: it may be what kills them.
# Before its last chance it is a suspect, and suspects are tried one at a time in a worker,
# so that those that only happened to be in flight beside it are not failed with it.
MAX_LOST_IN_A_ROW = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What sending needs of a subscription."""

    id: uuid.UUID
    tenant: str
    url: str
    stored_secrets: list[bytes]
    retry_schedule: list[int]
    timeout_seconds: int

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """Make a target of the columns that a walk (claims.py) locked."""
        return cls(
            id=row[0],
            url=row[1],
            stored_secrets=row[2],
            retry_schedule=row[3],
            timeout_seconds=row[4],
            tenant=row[5],
        )

    @property
    def customer(self) -> str:
        """Who shares a worker's slots with others: the tenant, or the subscription itself if it has none."""
        return self.tenant or str(self.id)

    @property
    def signing_keys(self) -> list[bytes]:
        """The HMAC keys, newest first: two during a rotation, by the database's clock.

        Raises UnreadableSecret if the key ring lacks their key.
        """
        return [_signing_key(stored, self.id) for stored in self.stored_secrets]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimedRequest:
    """A request under our lease: what to send, and what settling has to know."""

    id: uuid.UUID
    target: Target
    event_type: str
    payload: bytes
    attempt_number: int
    trigger: str
    failure_count: int
    lost_count: int
    lease_token: uuid.UUID
    claimed_at: datetime

    @property
    def is_suspect(self) -> bool:
        """Whether one more lost worker would fail this request."""
        return self.lost_count == MAX_LOST_IN_A_ROW - 1


@lru_cache(maxsize=10_000)
def _signing_key(stored_secret: bytes, subscription_id: uuid.UUID) -> bytes:
    return signing.key_of(secrets.decrypt(stored_secret, row_id=subscription_id))
