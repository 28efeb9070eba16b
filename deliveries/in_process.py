"""Publish from Python, in the caller's transaction: what `deliveries.publish` does."""

import json
from typing import Any

import msgspec
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction

from deliveries import envelopes, idempotency, payload_checks, publishing, queue
from deliveries.idempotency import Key
from deliveries.publishing import Answer, NewEvent, Published
from subscriptions.problems import Problem


def publish(event_type: str, body: Any, *, tenant: str, idempotency_key: str | None) -> Published:
    """Store an event with its requests in the open transaction; see `deliveries.publish`."""
    event = NewEvent(event_type=event_type, payload=_payload_of(body), tenant=tenant)
    try:
        envelopes.check_event_type(event_type, "")
        envelopes.check_tenant(tenant, "")
        envelopes.check_payload(event.payload)
        key = None if idempotency_key is None else _key_of(event, idempotency_key)
        answer = _store(event, key)
    except Problem as problem:
        raise ValueError(_in_words(problem)) from problem
    return msgspec.json.decode(answer.body, type=Published)


def _store(event: NewEvent, key: Key | None) -> Answer:
    with transaction.atomic():
        first = None if key is None else idempotency.find(key)
        if first is not None:  # before the payload is checked: the schema may have changed since
            return Answer(body=first.answer or b"", is_replayed=True)
        findings = payload_checks.findings_of(event.event_type, event.payload, pointer="/body")
        answer = publishing.store_once([event.with_findings(findings)], key, is_batch=False)
        if not answer.is_replayed:
            transaction.on_commit(queue.wake_up)
        return answer


def _payload_of(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    try:
        text = json.dumps(body, cls=DjangoJSONEncoder, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise ValueError("body: It is nested too deeply.") from None
    return text.encode()


def _key_of(event: NewEvent, text: str) -> Key:
    content = msgspec.json.encode([event.event_type, event.payload])
    return Key.of_process(text, event.tenant, content)


def _in_words(problem: Problem) -> str:
    """Return what a caller has to know, in one text."""
    errors = [f"{error['pointer'].lstrip('/') or 'body'}: {error['detail']}" for error in problem.errors]
    return " ".join(errors) or problem.detail
