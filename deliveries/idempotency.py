"""The same call twice counts once: Idempotency-Key, remembered for 24 hours.

The key is stored in the statement or transaction that stores what was asked for, so that
there is never one without the other, and of any number of equal calls at once the database
lets one through: the others wait for its commit, and find what it stored.
"""

import re
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

# No comma: several headers come as one, joined by commas, and nothing else tells them from a single key.
PATTERN = rf"^[!-+\--~]([ -+\--~]{{0,{MAX_LENGTH - 2}}}[!-+\--~])?$"
_KEY = re.compile(PATTERN)

STORE = """
WITH kept AS (
    INSERT INTO idempotency_keys AS k (scope, key, body_digest, stored_id, created_at)
    SELECT %(scope)s, %(key)s, %(body_digest)s, %(id)s, statement_timestamp()
    FROM subscriptions AS s
    WHERE s.id = %(subscription_id)s AND s.status <> 'disabled' AND s.deleted_at IS NULL
    ON CONFLICT (scope, key) DO UPDATE SET
        body_digest = excluded.body_digest, stored_id = excluded.stored_id, created_at = excluded.created_at
    WHERE k.created_at <= statement_timestamp() - interval '24 hours'
    RETURNING stored_id
)
INSERT INTO webhook_requests (id, subscription_id, tenant, event_type, payload, findings)
SELECT kept.stored_id, s.id, s.tenant, %(event_type)s, %(payload)b, %(findings)s::text::jsonb
FROM kept
JOIN subscriptions AS s ON s.id = %(subscription_id)s
RETURNING id
"""

# A call that waited for an equal one to commit takes the key if that one rolled back, and
# otherwise gets no row. Whoever is not sure whether its own commit came through, and runs
# it all again, has the key already: it comes with the id that it gave.
CLAIM = """
INSERT INTO idempotency_keys AS k (scope, key, body_digest, stored_id, created_at)
VALUES (%(scope)s, %(key)s, %(body_digest)s, %(stored_id)s, statement_timestamp())
ON CONFLICT (scope, key) DO UPDATE SET
    body_digest = excluded.body_digest, stored_id = excluded.stored_id, created_at = excluded.created_at
WHERE k.created_at <= statement_timestamp() - interval '24 hours' OR k.stored_id = excluded.stored_id
RETURNING k.id
"""

KEEP_ANSWER = "UPDATE idempotency_keys SET answer = %(answer)b WHERE scope = %(scope)s AND key = %(key)s"

FIND = """
SELECT stored_id, answer, body_digest
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
        """Return the key of an ingest call, which holds for its subscription; None if it has none."""
        return cls._read(headers, f"ingest:{subscription_id}", body)

    @classmethod
    def of_publish(cls, headers: Mapping[str, str], tenant: str | None, body: bytes) -> "Key | None":
        """Return the key of a publish call, None if it has none.

        It holds for all callers of one tenant, whatever their API keys, or else for all operators.
        """
        return cls._read(headers, _scope("events", tenant), body)

    @classmethod
    def of_process(cls, text: str, tenant: str, content: bytes) -> "Key":
        """Return the key of a call from Python, which holds for the tenant that is published for."""
        return cls._checked(text, _scope("publish", tenant), content)

    @classmethod
    def _read(cls, headers: Mapping[str, str], scope: str, body: bytes) -> "Key | None":
        # An empty one is refused, not passed over: the server empties a value that is not ASCII.
        text = headers.get(HEADER)
        return None if text is None else cls._checked(text, scope, body)

    @classmethod
    def _checked(cls, text: str, scope: str, body: bytes) -> "Key":
        """Return the key; raise Problem (400) for a text that is none."""
        if not _KEY.fullmatch(text):
            detail = (
                f"An {HEADER} has 1 to {MAX_LENGTH} characters of visible ASCII, with spaces inside but no comma, "
                "and is given once."
            )
            raise Problem(status=400, code="invalid_idempotency_key", detail=detail)
        return cls(scope=scope, key=text, body_digest=sha256(body).digest())


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """What the first call stored: its id, and the answer it got if that says more than the id."""

    id: uuid.UUID
    answer: bytes | None


def store(key: Key, row: Mapping[str, Any]) -> bool:
    """Store a request under its key; return False if the key is taken, or the subscription disabled."""
    return bool(sql.run(STORE, _parameters(key) | dict(row)))


def claim(key: Key, stored_id: uuid.UUID) -> bool:
    """Take the key for what the open transaction stores; return False if an equal call has it.

    Waits for an equal call in another transaction.
    """
    return bool(sql.run(CLAIM, _parameters(key) | {"stored_id": stored_id}))


def keep_answer(key: Key, answer: bytes) -> None:
    """Keep what a claimed key is answered."""
    sql.run(KEEP_ANSWER, _parameters(key) | {"answer": answer})


def find(key: Key) -> Stored | None:
    """Return what was first stored under the key, None if nothing was.

    Raises Problem (422) if that was another body.
    """
    rows = sql.run(FIND, _parameters(key))
    if not rows:
        return None
    stored_id, answer, body_digest = rows[0]
    if bytes(body_digest) != key.body_digest:
        detail = "This Idempotency-Key was used with another body within the last 24 hours."
        raise Problem(status=422, code="idempotency_key_reused", detail=detail)
    return Stored(id=stored_id, answer=None if answer is None else bytes(answer))


def _scope(kind: str, tenant: str | None) -> str:
    """Return where a key holds, in no more characters than the column has."""
    return kind if tenant is None else f"{kind}:{sha256(tenant.encode()).hexdigest()[:48]}"


def _parameters(key: Key) -> dict[str, Any]:
    return {"scope": key.scope, "key": key.key, "body_digest": key.body_digest}
