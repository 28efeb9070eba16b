"""Accept one request: verify, filter, store, wake. Both doors of POST /ingest lead here."""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event as Flag
from threading import Lock
from typing import TypeVar

import msgspec
from django.db import connection

from deliveries import idempotency, queue, sql
from deliveries.idempotency import Key
from subscriptions import event_types, signing
from subscriptions.models import Subscription, new_id
from subscriptions.problems import Problem, unavailable

SIGNATURE_HEADER = "X-Webhook-Signature"

# A database that takes longer than this, in seconds, counts as away.
ANSWER_SECONDS = 1.0

# Rows that one commit carries at most.
GROUP_SIZE = 256

# Three names and two texts. JSON parsers disagree on which of two members of the same
# name counts, so an envelope with more quotes than these, outside its body, is refused.
ENVELOPE_QUOTES = 10

Result = TypeVar("Result")


class Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an ingest call; `body` is kept as the bytes it was sent as."""

    subscription_id: uuid.UUID
    event_type: str
    body: msgspec.Raw


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """A stored request; `is_replayed` if an earlier call with the same Idempotency-Key stored it."""

    request_id: uuid.UUID
    is_replayed: bool = False


@dataclass(slots=True)
class _Row:
    """A request on its way into the database, and the thread that waits for it."""

    id: uuid.UUID
    subscription_id: uuid.UUID
    event_type: str
    payload: bytes
    done: Flag = field(default_factory=Flag)
    leads: bool = False
    is_stored: bool = False
    error: Exception | None = None


# The join refuses a subscription that was disabled or deleted since it was cached. The
# ids are ours, so that a statement whose commit is in doubt can simply be run again.
INSERT = """
INSERT INTO webhook_requests (id, subscription_id, tenant, event_type, payload)
SELECT new.id, s.id, s.tenant, new.event_type, new.payload
FROM unnest(%(ids)b::uuid[], %(subscription_ids)b::uuid[], %(event_types)b::text[], %(payloads)b::bytea[])
    AS new (id, subscription_id, event_type, payload)
JOIN subscriptions AS s ON s.id = new.subscription_id AND s.status <> 'disabled'
ON CONFLICT (id) DO UPDATE SET id = excluded.id
RETURNING id
"""


class _GroupCommit:
    """Threads hand their rows to whichever of them is committing, and share its commit.

    The first to come leads: it stores what has gathered in one statement, tells the others,
    and hands on to the next that came in the meantime.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: list[_Row] = []
        self._has_leader = False

    def store(self, row: _Row) -> None:
        """Return when `row` is committed or refused; raise what the database raised."""
        with self._lock:
            self._waiting.append(row)
            row.leads, self._has_leader = not self._has_leader, True
        if not row.leads:
            row.done.wait()
        if row.leads:
            self._lead()
        if row.error is not None:
            raise row.error

    def _lead(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting[:GROUP_SIZE], self._waiting[GROUP_SIZE:]
        try:
            stored = again_if_disconnected(lambda: _insert(group))
            for row in group:
                row.is_stored = row.id in stored
        except Exception as error:  # every thread of the group has to hear of it, and raises it
            for row in group:
                row.error = error
        self._hand_on()
        for row in group:
            row.done.set()

    def _hand_on(self) -> None:
        with self._lock:
            if not self._waiting:
                self._has_leader = False
                return
            following = self._waiting[0]
        following.leads = True
        following.done.set()


_group_commit = _GroupCommit()


def accept(body: bytes, headers: Mapping[str, str]) -> Accepted | None:
    """Store one ingest call durably and return its request, None if its type is not wanted.

    `body` is the raw body of the call, `headers` finds its headers by name. Raises Problem:
    400 for a malformed body, 404 for an unknown subscription, 401 for a missing or wrong
    signature, 409 for a disabled subscription, 422 for an Idempotency-Key that was used with
    another body, 503 while the database is away.
    """
    envelope = _read(body)
    subscription = _find(envelope.subscription_id)
    _verify(subscription, body, headers.get(SIGNATURE_HEADER) or "")
    key = Key.of_ingest(headers, subscription.id, body)
    if not subscription.is_disabled and not subscription.accepts(envelope.event_type):
        return None
    row = _Row(new_id(), subscription.id, envelope.event_type, bytes(envelope.body))
    try:
        accepted = _store(row, subscription) if key is None else _store_once(row, subscription, key)
    except sql.AWAY as error:
        raise unavailable() from error
    if accepted is None:
        raise _disabled()
    queue.wake_up()
    return accepted


def _store(row: _Row, subscription: Subscription) -> Accepted | None:
    """Store a request, unless its subscription is disabled."""
    if not subscription.is_disabled:
        _group_commit.store(row)
    return Accepted(request_id=row.id) if row.is_stored else None


def _store_once(row: _Row, subscription: Subscription, key: Key) -> Accepted | None:
    """Store a request, or find the one that an equal call stored before."""
    values = {
        "id": row.id,
        "subscription_id": row.subscription_id,
        "event_type": row.event_type,
        "payload": row.payload,
    }
    if not subscription.is_disabled and again_if_disconnected(lambda: idempotency.store(key, values)):
        return Accepted(request_id=row.id)
    stored_id = again_if_disconnected(lambda: idempotency.find(key))
    if stored_id is None:
        return None
    return Accepted(request_id=stored_id, is_replayed=stored_id != row.id)


def again_if_disconnected(action: Callable[[], Result]) -> Result:
    """Run `action`, and once more on a new connection if the first turns out to be gone.

    A restarted PostgreSQL leaves dead connections behind, which only show when used. One
    that does not answer at all is not asked twice.
    """
    started_at = time.monotonic()
    try:
        with sql.deadline(ANSWER_SECONDS):
            return action()
    except sql.AWAY:
        connection.close()
        if time.monotonic() - started_at >= ANSWER_SECONDS:
            raise
    try:
        with sql.deadline(ANSWER_SECONDS):
            return action()
    except sql.AWAY:
        connection.close()  # the next call begins with a new one
        raise


def _read(body: bytes) -> Envelope:
    try:
        body.decode()  # msgspec does not look whether what it cuts out is UTF-8
        envelope = msgspec.json.decode(body, type=Envelope)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        pointer = path.rstrip("`").replace(".", "/")
        raise Problem(
            status=400,
            code="invalid",
            detail="The request is not valid; see errors.",
            errors=[{"pointer": pointer, "code": "invalid", "detail": message}],
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(status=400, code="parse_error", detail=f"The body is not valid JSON: {error}.") from None
    except RecursionError:
        raise Problem(status=400, code="parse_error", detail="The body is nested too deeply.") from None
    if not event_types.is_event_type(envelope.event_type):
        detail = "An event type has letters, digits, _ and -, in segments joined by dots."
        raise Problem(
            status=400,
            code="invalid",
            detail="The request is not valid; see errors.",
            errors=[{"pointer": "/event_type", "code": "invalid_event_type", "detail": detail}],
        )
    if body.count(b'"') - bytes(envelope.body).count(b'"') != ENVELOPE_QUOTES:
        detail = "Give each of subscription_id, event_type and body once."
        raise Problem(status=400, code="duplicate_member", detail=detail)
    return envelope


def _find(subscription_id: uuid.UUID) -> Subscription:
    try:
        return again_if_disconnected(lambda: Subscription.objects.cached(subscription_id))
    except Subscription.DoesNotExist:
        raise Problem(status=404, code="not_found", detail="There is no such subscription.") from None
    except sql.AWAY as error:
        raise unavailable() from error


def _verify(subscription: Subscription, body: bytes, signature: str) -> None:
    if not signature:
        detail = f"Sign the raw request body and send {SIGNATURE_HEADER}: sha256=<hex HMAC-SHA256>."
        raise Problem(status=401, code="signature_missing", detail=detail)
    if not signing.verify_body(subscription.signing_keys, body, signature):
        detail = (
            "The signature does not match the raw request body under this subscription's secret. "
            "The key of a whsec_ secret is what its base64 part decodes to."
        )
        raise Problem(status=401, code="signature_invalid", detail=detail)


def _disabled() -> Problem:
    return Problem(status=409, code="subscription_disabled", detail="This subscription is disabled.")


def _insert(group: list[_Row]) -> set[uuid.UUID]:
    parameters = {
        "ids": [row.id for row in group],
        "subscription_ids": [row.subscription_id for row in group],
        "event_types": [row.event_type for row in group],
        "payloads": [row.payload for row in group],
    }
    return {stored_id for (stored_id,) in sql.run(INSERT, parameters)}
