"""The same call twice is one request: Idempotency-Key, remembered for 24 hours.

The key is stored in the statement that stores the request, so that there is never one
without the other, and of any number of equal calls at once the database lets one through.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from deliveries import sql
from subscriptions.problems import Problem

HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotency-Replayed"
MAX_LENGTH = 255

STORE = """
WITH kept AS (
    INSERT INTO idempotency_keys AS k (scope, key, body_digest, request_id, created_at)
    SELECT %(scope)s, %(key)s, %(body_digest)s, %(id)s, statement_timestamp()
    FROM subscriptions AS s
    WHERE s.id = %(subscription_id)s AND s.status <> 'disabled'
    ON CONFLICT (scope, key) DO UPDATE SET
        body_digest = excluded.body_digest, request_id = excluded.request_id, created_at = excluded.created_at
    WHERE k.created_at <= statement_timestamp() - interval '24 hours'
    RETURNING request_id
)
INSERT INTO webhook_requests (id, subscription_id, tenant, event_type, payload)
SELECT kept.request_id, s.id, s.tenant, %(event_type)s, %(payload)b
FROM kept
JOIN subscriptions AS s ON s.id = %(subscription_id)s
RETURNING id
"""

FIND = """
SELECT request_id, body_digest
FROM idempotency_keys
WHERE scope = %(scope)s AND key = %(key)s AND created_at > statement_timestamp() - interval '24 hours'
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """An Idempotency-Key, where it holds, and the body that it was first sent with."""

    scope: str
    key: str
    body_digest: bytes

    @classmethod
    def of_ingest(cls, headers: Mapping[str, str], subscription_id: uuid.UUID, body: bytes) -> "Key | None":
        """Return the key of an ingest call, None if it has none; raise Problem (400) for one that is none."""
        text = headers.get(HEADER) or ""
        if not text:
            return None
        if len(text) > MAX_LENGTH or not (text.isascii() and text.isprintable()):
            detail = f"An Idempotency-Key has 1 to {MAX_LENGTH} characters of visible ASCII."
            raise Problem(status=400, code="invalid_idempotency_key", detail=detail)
        return cls(scope=f"ingest:{subscription_id}", key=text, body_digest=sha256(body).digest())


def store(key: Key, row: Mapping[str, Any]) -> bool:
    """Store a request under its key; return False if the key is taken, or the subscription disabled."""
    parameters = {"scope": key.scope, "key": key.key, "body_digest": key.body_digest}
    return bool(sql.run(STORE, parameters | dict(row)))


def find(key: Key) -> uuid.UUID | None:
    """Return the id of the request first stored under the key, None if there is none.

    Raises Problem (422) if that was another body.
    """
    rows = sql.run(FIND, {"scope": key.scope, "key": key.key})
    if not rows:
        return None
    request_id, body_digest = rows[0]
    if bytes(body_digest) != key.body_digest:
        detail = "This Idempotency-Key was used with another body within the last 24 hours."
        raise Problem(status=422, code="idempotency_key_reused", detail=detail)
    return uuid.UUID(str(request_id))
