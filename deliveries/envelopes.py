"""Read the bodies of ingest and publish calls: strictly, and with the payload left as the bytes it is."""

import re
import uuid
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from subscriptions import event_types, problems
from subscriptions.filters import pointer_of
from subscriptions.parsers import no_json
from subscriptions.problems import MAX_ERRORS, Problem

MAX_BATCH = 1_000
MAX_TENANT_LENGTH = 255

# Three names and two texts: what an ingest envelope has of quotes, outside its body.
INGEST_QUOTES = 10

# What msgspec says of the members of an object, and what is said of a field everywhere else.
_MEMBER = re.compile(r"Object (?P<what>missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL)
MEMBERS = {
    "missing required": ("required", "This field is required."),
    "contains unknown": ("unknown", "This field is not known."),
}

Shape = TypeVar("Shape")


class IngestEnvelope(msgspec.Struct, forbid_unknown_fields=True):
    """The body of an ingest call."""

    subscription_id: uuid.UUID
    event_type: str
    body: msgspec.Raw


class EventEnvelope(msgspec.Struct, forbid_unknown_fields=True):
    """One event to publish; without `tenant` it is for the tenant of the caller."""

    event_type: str
    body: msgspec.Raw
    tenant: str | msgspec.UnsetType = msgspec.UNSET


class BatchEnvelope(msgspec.Struct, forbid_unknown_fields=True):
    """Many events, each read by itself."""

    events: list[msgspec.Raw]


class TrialEnvelope(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a test call: everything has a default."""

    event_type: str = "webhook.test"
    body: msgspec.Raw = msgspec.Raw(b'{"test": true}')


def read_ingest(body: bytes) -> IngestEnvelope:
    """Return the envelope of an ingest call; raise Problem (400) for anything else."""
    envelope = _decode(body, IngestEnvelope, "")
    check_event_type(envelope.event_type, "")
    # JSON parsers disagree on which of two members of the same name counts.
    if body.count(b'"') - bytes(envelope.body).count(b'"') != INGEST_QUOTES:
        raise _duplicate("subscription_id, event_type and body")
    return envelope


def read_event(body: bytes, tenant: str | None) -> EventEnvelope:
    """Return the event of a publish call; raise Problem (400) for anything else.

    It has to be for `tenant`, unless that is None.
    """
    return _read_event(body, "", tenant)


def read_batch(body: bytes, tenant: str | None) -> list[EventEnvelope]:
    """Return the events of a batch in their order; raise Problem (400), which tells of all that are none.

    Each has to be for `tenant`, unless that is None.
    """
    batch = _decode(body, BatchEnvelope, "")
    if not 1 <= len(batch.events) <= MAX_BATCH:
        raise invalid("/events", "invalid_length", f"A batch has 1 to {MAX_BATCH} events.")
    if body.count(b'"') != 2 + sum(bytes(event).count(b'"') for event in batch.events):
        raise _duplicate("events")
    events, refusals = [], []
    for index, event in enumerate(batch.events):
        try:
            events.append(_read_event(bytes(event), f"/events/{index}", tenant))
        except Problem as refused:
            refusals.append(refused)
    if refusals:
        raise _refused_together(refusals)
    return events


def read_trial(body: bytes) -> TrialEnvelope:
    """Return what a test call is to send, the usual for no body at all; raise Problem (400) for anything else."""
    if not body:
        return TrialEnvelope()
    envelope = _decode(body, TrialEnvelope, "")
    check_event_type(envelope.event_type, "")
    if _has_duplicates(body):
        raise _duplicate("event_type and body")
    return envelope


def invalid(pointer: str, code: str, detail: str) -> Problem:
    """Return the refusal of one thing in a body."""
    return problems.invalid([{"pointer": pointer, "code": code, "detail": detail}])


def check_event_type(event_type: str, pointer: str) -> None:
    """Raise Problem (400) unless this is an event type."""
    if not event_types.is_event_type(event_type):
        raise invalid(f"{pointer}/event_type", "invalid_event_type", event_types.RULE)


def check_tenant(tenant: str, pointer: str) -> None:
    """Raise Problem (400) unless this can name a tenant."""
    if len(tenant) > MAX_TENANT_LENGTH or "\0" in tenant:
        detail = f"A tenant has at most {MAX_TENANT_LENGTH} characters, and no NUL."
        raise invalid(f"{pointer}/tenant", "invalid_tenant", detail)


def check_payload(payload: bytes) -> None:
    """Raise Problem (400) unless these bytes are one JSON value in UTF-8."""
    _decode(payload, msgspec.Raw, "/body")


def _read_event(body: bytes, pointer: str, tenant: str | None) -> EventEnvelope:
    envelope = _decode(body, EventEnvelope, pointer)
    check_event_type(envelope.event_type, pointer)
    if not isinstance(envelope.tenant, msgspec.UnsetType):
        check_tenant(envelope.tenant, pointer)
        if tenant not in (None, envelope.tenant):
            raise invalid(f"{pointer}/tenant", "wrong_tenant", "This API key is bound to another tenant.")
    if _has_duplicates(body):
        raise _duplicate("event_type, body and tenant", pointer)
    return envelope


def _has_duplicates(body: bytes) -> bool:
    """Return whether an object has more quotes than its members, each taken once, account for."""
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return body.count(b'"') != 2 * len(members) + sum(bytes(member).count(b'"') for member in members.values())


def _decode(body: bytes, shape: type[Shape], pointer: str) -> Shape:
    try:
        body.decode()  # msgspec does not look whether what it cuts out is UTF-8
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise _misfit(str(error), pointer) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refused("parse_error", no_json(body, error), pointer) from None
    except RecursionError:
        raise _refused("parse_error", "The body is nested too deeply.", pointer) from None


def _misfit(message: str, pointer: str) -> Problem:
    """Return the refusal of what does not fit its shape, from msgspec's words for it."""
    if found := _MEMBER.fullmatch(message):
        code, detail = MEMBERS[found["what"]]
        return invalid(pointer + pointer_of((found["name"],)), code, detail)
    words, _, path = message.partition(" - at `$")
    place = path.rstrip("`").replace("[", "/").replace("]", "").replace(".", "/")
    return invalid(pointer + place, "invalid", words)


def _duplicate(names: str, pointer: str = "") -> Problem:
    return _refused("duplicate_member", f"Give each of {names} once.", pointer)


def _refused(code: str, detail: str, pointer: str) -> Problem:
    """Return the refusal of a whole body, or of the part of it that `pointer` names."""
    errors = [{"pointer": pointer, "code": code, "detail": detail}] if pointer else []
    return Problem(status=400, code=code, detail=detail, errors=errors)


def _refused_together(refusals: Sequence[Problem]) -> Problem:
    """Return one refusal for all of these, with the first of their errors."""
    codes = {refused.code for refused in refusals}
    details = {refused.detail for refused in refusals}
    return Problem(
        status=400,
        code=codes.pop() if len(codes) == 1 else "invalid",
        detail=details.pop() if len(details) == 1 else problems.INVALID,
        errors=[error for refused in refusals for error in refused.errors][:MAX_ERRORS],
    )
