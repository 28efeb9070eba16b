"""Publish events to every subscription that takes them, in one transaction.

An event is stored once, with a webhook request for each subscription of its tenant that
takes its type and whose filter it meets. One statement finds the subscriptions by type, for
however many events; filters, where there are some, are read in parts and looked at here. The
events are stored by statements of a bounded size, all their requests by one.
"""

import contextlib
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import msgspec
import psycopg.errors
from django.db import OperationalError, connection, transaction

from deliveries import idempotency, queue, sql
from deliveries.idempotency import Key
from subscriptions import event_types, filters
from subscriptions.ids import new_id
from subscriptions.problems import Problem, unavailable

# A database that takes longer than this to store a call, in seconds, counts as away. A batch
# may make many thousands of requests.
STORE_SECONDS = 20.0

# Requests that the events of one batch may make.
MAX_REQUESTS = 100_000

# Times that an event type of one batch may be taken by a subscription. To look at as many filters takes
# about as long as FILTER_SECONDS.
MAX_MATCHES = 300_000

# How long the database may compare the event types of one batch with those that all subscriptions take:
# a thousand of 60 segments with 250 each of a thousand would take minutes.
MATCH_MS = 2_000

# Filters that are read at once: of a tenant with very many, all of them would fill the memory.
FILTERS_AT_ONCE = 500

# How long the filters of one call may take: hundreds of them that each look at a large event.
FILTER_SECONDS = 5.0

# Why a request of a disabled subscription was skipped; it can be recovered.
DISABLED = "the subscription is disabled"

# The subscriptions that take one of the event types, and which they take. `event_types` lists names and
# wildcards, and `patterns` all that would match: one in common is enough.
MATCH = """
SELECT matched.id, matched.has_filter, array_agg(matched.number)
FROM (
    SELECT s.id, s.filter IS NOT NULL AS has_filter, published.number
    FROM unnest(%(tenants)b::text[], %(patterns)b::text[]) WITH ORDINALITY AS published (tenant, patterns, number)
    JOIN subscriptions AS s
        ON s.tenant = published.tenant
        AND s.deleted_at IS NULL
        AND (s.event_types = '{}' OR s.event_types && published.patterns::varchar[])
    LIMIT %(limit)s
) AS matched
GROUP BY matched.id, matched.has_filter
ORDER BY matched.id
"""

FILTERS = "SELECT id, filter FROM subscriptions WHERE id = ANY(%(ids)s)"

# The ids are ours: where it is in doubt whether a commit came through, all of it is run
# again, and finds its events.
INSERT_EVENTS = """
INSERT INTO events (id, tenant, event_type, payload, findings)
SELECT new.id, new.tenant, new.event_type, new.payload, new.findings::jsonb
FROM unnest(
    %(ids)b::uuid[], %(tenants)b::text[], %(event_types)b::text[], %(payloads)b::bytea[], %(findings)b::text[]
) AS new (id, tenant, event_type, payload, findings)
ON CONFLICT (id) DO NOTHING
RETURNING id
"""

# The join sees what was disabled or deleted since the match.
INSERT_REQUESTS = """
INSERT INTO webhook_requests (
    id, event_id, subscription_id, tenant, event_type, status, status_reason, next_attempt_at, settled_at
)
SELECT
    new.id, new.event_id, s.id, s.tenant, new.event_type,
    CASE WHEN s.is_off THEN 'skipped' ELSE 'pending' END,
    CASE WHEN s.is_off THEN %(reason)s ELSE '' END,
    CASE WHEN NOT s.is_off THEN statement_timestamp() END,
    CASE WHEN s.is_off THEN statement_timestamp() END
FROM unnest(%(ids)b::uuid[], %(event_ids)b::uuid[], %(subscription_ids)b::uuid[], %(event_types)b::text[])
    AS new (id, event_id, subscription_id, event_type)
JOIN (
    SELECT id, tenant, status = 'disabled' OR deleted_at IS NOT NULL AS is_off FROM subscriptions
) AS s ON s.id = new.subscription_id
RETURNING id, event_id, subscription_id, status
"""

FIND_REQUESTS = """
SELECT id, event_id, subscription_id, status FROM webhook_requests WHERE event_id = ANY(%(event_ids)s)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewEvent:
    """An event to publish; the bytes of its payload are what is delivered."""

    event_type: str
    payload: bytes
    tenant: str = ""
    findings: list[dict[str, str]] | None = None
    id: uuid.UUID = field(default_factory=new_id)

    def with_findings(self, findings: list[dict[str, str]] | None) -> "NewEvent":
        """Return the event with what its schema finds wrong with it."""
        return self if findings is None else replace(self, findings=findings)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Taker:
    """A subscription, and those of the events whose type it takes, in their order."""

    id: uuid.UUID
    filter: Any
    events: list[NewEvent]


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeRequest:
    """A webhook request that an event made: pending, or skipped because its subscription is disabled."""

    subscription_id: uuid.UUID
    request_id: uuid.UUID
    status: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A stored event, and the requests that it made, in the order of their ids."""

    event_id: uuid.UUID
    requests: list[MadeRequest]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a publish call is answered, in JSON; `is_replayed` if an equal call was, before."""

    body: bytes
    is_replayed: bool = False


def publish_call(events: Sequence[NewEvent], key: Key | None, *, is_batch: bool) -> Answer:
    """Store the events of one call durably, wake the workers and return the answer.

    Raises Problem: 422 for an Idempotency-Key that was used with another body, 503 while
    the database is away.
    """

    def run() -> Answer:
        with transaction.atomic():
            return store_once(events, key, is_batch=is_batch)

    try:
        answer = sql.again_if_disconnected(run, seconds=STORE_SECONDS)
    except sql.AWAY as error:
        raise unavailable() from error
    if not answer.is_replayed:
        queue.wake_up()
    return answer


def replayed(key: Key | None) -> Answer | None:
    """Return what the call of this key was answered before, None if this is the first."""
    try:
        stored = None if key is None else sql.again_if_disconnected(lambda: idempotency.find(key))
    except sql.AWAY as error:
        raise unavailable() from error
    return None if stored is None else Answer(body=stored.answer or b"", is_replayed=True)


def store_once(events: Sequence[NewEvent], key: Key | None, *, is_batch: bool) -> Answer:
    """Store events and their requests in the open transaction, unless an equal call has the key.

    The workers have to be woken after the commit.
    """
    if key is not None and not idempotency.claim(key, events[0].id):
        stored = idempotency.find(key)  # its transaction has been committed by now
        if stored is None:
            raise unavailable()  # and its 24 hours ended this very moment
        return Answer(body=stored.answer or b"", is_replayed=True)
    published = _store(events)
    answer = msgspec.json.encode({"events": published} if is_batch else published[0])
    if key is not None:
        idempotency.keep_answer(key, answer)
    return Answer(body=answer)


def _store(events: Sequence[NewEvent]) -> list[Published]:
    stored = [row for part in sql.in_parts(events) for row in sql.run(INSERT_EVENTS, _event_columns(part))]
    if stored:
        rows = _insert_requests(events)
    else:
        rows = sql.run(FIND_REQUESTS, {"event_ids": [event.id for event in events]})
    made: dict[uuid.UUID, list[MadeRequest]] = {event.id: [] for event in events}
    for request_id, event_id, subscription_id, status in sorted(rows):
        made[event_id].append(MadeRequest(subscription_id=subscription_id, request_id=request_id, status=status))
    return [Published(event_id=event.id, requests=made[event.id]) for event in events]


def _insert_requests(events: Sequence[NewEvent]) -> list[tuple[Any, ...]]:
    found = _targets(events)
    targets = list(found if len(events) == 1 else islice(found, MAX_REQUESTS + 1))
    if len(events) > 1 and len(targets) > MAX_REQUESTS:
        raise _too_many(f"These events would make more than {MAX_REQUESTS} requests.")
    if not targets:
        return []
    parameters = {
        "ids": [new_id() for _ in targets],
        "event_ids": [event.id for event, _ in targets],
        "subscription_ids": [subscription_id for _, subscription_id in targets],
        "event_types": [event.event_type for event, _ in targets],
        "reason": DISABLED,
    }
    return sql.run(INSERT_REQUESTS, parameters)


def _targets(events: Sequence[NewEvent]) -> Iterator[tuple[NewEvent, uuid.UUID]]:
    """Yield each subscription with each event whose type it takes and that meets its filter, in their order."""
    until = time.monotonic() + FILTER_SECONDS
    documents: dict[uuid.UUID, dict[str, Any]] = {}
    for taker in _takers(events):
        for event in taker.events:
            if taker.filter:
                if time.monotonic() > until:
                    raise too_slow()
                if event.id not in documents:
                    documents[event.id] = document_of(event)
                if filters.explain(taker.filter, documents[event.id]) is not None:
                    continue
            yield event, taker.id


def too_slow() -> Problem:
    """Filters take longer than FILTER_SECONDS for what is published."""
    detail = "The filters of the subscriptions take too long for this. Publish fewer or smaller events at once."
    return Problem(status=422, code="too_slow", detail=detail)


def _takers(events: Sequence[NewEvent]) -> Iterator[_Taker]:
    """Yield the subscriptions that take the type of one of the events."""
    places = defaultdict(list)
    for place, event in enumerate(events):
        places[event.tenant, event.event_type].append(place)
    kinds = list(places)
    parameters = {
        "tenants": [tenant for tenant, _ in kinds],
        "patterns": [_array(event_types.patterns_taking(event_type)) for _, event_type in kinds],
        "limit": None if len(events) == 1 else MAX_MATCHES + 1,
    }
    with contextlib.nullcontext() if len(events) == 1 else _soon():
        matched = sql.run(MATCH, parameters)
    if len(events) > 1 and sum(len(numbers) for _, _, numbers in matched) > MAX_MATCHES:
        raise _too_many(f"The types of these events are taken more than {MAX_MATCHES} times.")
    for begin in range(0, len(matched), FILTERS_AT_ONCE):
        part = matched[begin : begin + FILTERS_AT_ONCE]
        filtered = [subscription_id for subscription_id, has_filter, _ in part if has_filter]
        conditions = dict(sql.run(FILTERS, {"ids": filtered})) if filtered else {}
        for subscription_id, _, numbers in part:
            taken = sorted(place for number in numbers for place in places[kinds[number - 1]])
            yield _Taker(
                id=subscription_id,
                filter=conditions.get(subscription_id),
                events=[events[place] for place in taken],
            )


@contextlib.contextmanager
def _soon() -> Iterator[None]:
    """Have the database give up on what takes longer than MATCH_MS within the block; raise Problem (422) then."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(MATCH_MS)])
            yield
            cursor.execute("SET LOCAL statement_timeout TO DEFAULT")
    except OperationalError as error:
        if not isinstance(error.__cause__, psycopg.errors.QueryCanceled):
            raise
        detail = "These events have too many types for the subscriptions. Publish fewer of them at once."
        raise Problem(status=422, code="too_slow", detail=detail) from None


def _too_many(detail: str) -> Problem:
    return Problem(status=413, code="too_large", detail=f"{detail} Publish them in smaller batches.")


def _array(patterns: Sequence[str]) -> str:
    """Return an array as PostgreSQL writes it: no pattern has a quote in it, and one may be `null`."""
    return "{" + ",".join(f'"{pattern}"' for pattern in patterns) + "}"


def document_of(event: NewEvent) -> dict[str, Any]:
    """Return the event as filters see it."""
    return filters.document(event_type=event.event_type, tenant=event.tenant, payload=event.payload)


def _event_columns(events: Sequence[NewEvent]) -> dict[str, list[Any]]:
    return {
        "ids": [event.id for event in events],
        "tenants": [event.tenant for event in events],
        "event_types": [event.event_type for event in events],
        "payloads": [event.payload for event in events],
        "findings": [None if event.findings is None else _json(event.findings) for event in events],
    }


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
