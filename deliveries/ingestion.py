"""Accept one request: verify, filter, store, wake. Both doors of POST /ingest lead here."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event as Flag
from threading import Lock

import msgspec
from django.db import DataError, IntegrityError

from deliveries import envelopes, idempotency, payload_checks, queue, sql
from deliveries.envelopes import IngestEnvelope
from deliveries.idempotency import Key
from deliveries.payload_checks import PayloadRefused
from subscriptions import filters, signing
from subscriptions.models import Subscription, new_id
from subscriptions.problems import Problem, unavailable

SIGNATURE_HEADER = "X-Webhook-Signature"

# What a subscription that was changed since it was cached may be refused with, wrongly.
REFUSED_BY_SUBSCRIPTION = (401, 409)


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
    findings: str | None
    done: Flag = field(default_factory=Flag)
    leads: bool = False
    is_stored: bool = False
    error: Exception | None = None


# The join refuses a subscription that was disabled or deleted since it was cached. The
# ids are ours, so that a statement whose commit is in doubt can simply be run again.
INSERT = """
INSERT INTO webhook_requests (id, subscription_id, tenant, event_type, payload, findings)
SELECT new.id, s.id, s.tenant, new.event_type, new.payload, new.findings::jsonb
FROM unnest(
    %(ids)b::uuid[], %(subscription_ids)b::uuid[], %(event_types)b::text[], %(payloads)b::bytea[],
    %(findings)b::text[]
) AS new (id, subscription_id, event_type, payload, findings)
JOIN subscriptions AS s ON s.id = new.subscription_id AND s.status <> 'disabled' AND s.deleted_at IS NULL
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
        group = self._take_some()
        self._store(group)
        error = group[0].error
        if isinstance(error, sql.AWAY):
            # Those that came meanwhile would find the same, each after a wait of its own.
            refused = self._take_all()
            for row in refused:
                row.error = error
            group += refused
        self._hand_on()
        for row in group:
            row.done.set()

    def _take_some(self) -> list[_Row]:
        """Take as many rows, in their order, as one statement stores."""
        with self._lock:
            taken = list(next(sql.in_parts(self._waiting)))
            del self._waiting[: len(taken)]
        return taken

    def _take_all(self) -> list[_Row]:
        with self._lock:
            taken, self._waiting = self._waiting, []
        return taken

    def _store(self, group: list[_Row]) -> None:
        """Store these rows; what is raised is left in them, for their threads to raise."""
        try:
            stored = sql.again_if_disconnected(lambda: _insert(group))
        except (DataError, IntegrityError) as error:
            self._store_apart(group, error)
        except Exception as error:
            # A hand-over, not an end: each thread of the group raises it, this one too. With a
            # narrower one, a leader that left by another would have all that come after it wait
            # for ever.
            for row in group:
                row.error = error
        else:
            for row in group:
                row.is_stored = row.id in stored

    def _store_apart(self, group: list[_Row], error: Exception) -> None:
        """Store each row by itself: that the database does not take one of them is no matter of the others."""
        if len(group) == 1:
            group[0].error = error
            return
        for row in group:
            self._store([row])

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
    """Store one ingest call durably and return its request, None if the event is not wanted.

    `body` is the raw body of the call, `headers` finds its headers by name. Raises Problem:
    400 for a malformed body, 404 for an unknown subscription, 401 for a missing or wrong
    signature, 409 for a disabled subscription, 422 for a payload that its event type refuses
    and for an Idempotency-Key that was used with another body, 503 while the database is away.
    """
    envelope = envelopes.read_ingest(body)
    subscriptions = Subscription.objects
    try:
        return _accept_for(_find(subscriptions.cached, envelope.subscription_id), envelope, body, headers)
    except Problem as refusal:
        if refusal.status not in REFUSED_BY_SUBSCRIPTION:
            raise
    # Another process may have enabled it, or given it another secret: nobody is refused for what was.
    return _accept_for(_find(subscriptions.fresh, envelope.subscription_id), envelope, body, headers)


def _accept_for(
    subscription: Subscription, envelope: IngestEnvelope, body: bytes, headers: Mapping[str, str]
) -> Accepted | None:
    _verify(subscription, body, headers.get(SIGNATURE_HEADER) or "")
    key = Key.of_ingest(headers, subscription.id, body)
    payload = bytes(envelope.body)
    if not subscription.is_disabled and not _takes(subscription, envelope.event_type, payload):
        return None
    try:
        accepted = _check_and_store(subscription, envelope.event_type, payload, key)
    except sql.AWAY as error:
        raise unavailable() from error
    if accepted is None:
        raise _disabled()
    queue.wake_up()
    return accepted


def _takes(subscription: Subscription, event_type: str, payload: bytes) -> bool:
    """Return whether the subscription wants this event; the payload is read only if it has a filter."""
    if not subscription.accepts(event_type):
        return False
    if not subscription.filter:
        return True
    document = filters.document(event_type=event_type, tenant=subscription.tenant, payload=payload)
    return filters.explain(subscription.filter, document) is None


def _check_and_store(
    subscription: Subscription, event_type: str, payload: bytes, key: Key | None
) -> Accepted | None:
    try:
        findings = payload_checks.findings_of(event_type, payload, pointer="/body")
    except PayloadRefused:
        # The schema may have changed since an equal call was accepted.
        stored = None if key is None else sql.again_if_disconnected(lambda: idempotency.find(key))
        if stored is None:
            raise
        return Accepted(request_id=stored.id, is_replayed=True)
    text = None if findings is None else msgspec.json.encode(findings).decode()
    row = _Row(new_id(), subscription.id, event_type, payload, text)
    return _store(row, subscription) if key is None else _store_once(row, subscription, key)


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
        "findings": row.findings,
    }
    if not subscription.is_disabled and sql.again_if_disconnected(lambda: idempotency.store(key, values)):
        return Accepted(request_id=row.id)
    stored = sql.again_if_disconnected(lambda: idempotency.find(key))
    if stored is None:
        return None
    return Accepted(request_id=stored.id, is_replayed=stored.id != row.id)


def _find(read: Callable[[uuid.UUID], Subscription], subscription_id: uuid.UUID) -> Subscription:
    try:
        return sql.again_if_disconnected(lambda: read(subscription_id))
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
        "findings": [row.findings for row in group],
    }
    return {stored_id for (stored_id,) in sql.run(INSERT, parameters)}
