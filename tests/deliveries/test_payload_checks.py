"""Payloads against the schema of their event type, on /ingest, /events and /events/batch."""

import json
import time

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from deliveries import payload_checks
from deliveries.models import Event, IdempotencyKey, WebhookRequest
from subscriptions import schema_cache
from subscriptions.catalog import EventType
from tests.conftest import ingest_body, signed_headers
from tests.expected import problem

pytestmark = pytest.mark.django_db

SCHEMA = {"type": "object", "required": ["total"], "properties": {"total": {"type": "integer"}}}
BAD = '{"total": "5"}'
FINDING = {"pointer": "/total", "code": "type", "detail": '"5" is not of type "integer"'}
REFUSED = "The payload does not fit the schema of its event type; see errors."


@pytest.fixture
def describe():
    def make(validation, name="invoice.paid", schema=SCHEMA):
        return EventType.objects.create(name=name, schema=schema, validation=validation)

    return make


def event(payload, event_type="invoice.paid"):
    return f'{{"event_type": "{event_type}", "body": {payload}}}'


@pytest.mark.parametrize(
    ("validation", "payload", "status", "findings"),
    [
        ("off", BAD, 202, None),
        ("warn", BAD, 202, [FINDING]),
        ("warn", '{"total": 5}', 202, None),
        ("enforce", '{"total": 5}', 202, None),
        ("enforce", BAD, 422, None),
    ],
)
def test_an_ingested_payload_is_checked(
    post_ingest, make_subscription, describe, validation, payload, status, findings
):
    describe(validation)
    body = ingest_body(make_subscription().id, body=payload)
    for headers in ({}, {"Idempotency-Key": "k"}):
        answer = post_ingest(body, signed_headers(body, **headers))
        assert answer.status == status
        if status == 422:
            assert answer.json() == problem(422, "payload_refused", REFUSED, FINDING | {"pointer": "/body/total"})
    assert [request.findings for request in WebhookRequest.objects.all()] == (
        [findings] * 2 if status == 202 else []
    )
    assert IdempotencyKey.objects.count() == (status == 202)


def test_a_nul_character_in_a_payload_is_told_as_its_escape(publish, post_ingest, make_subscription, describe):
    describe("warn", schema={"additionalProperties": {"type": "string"}})
    body = ingest_body(make_subscription().id, body=r'{"a\u0000b": 1}')
    assert post_ingest(body, signed_headers(body)).status == 202
    assert publish(event(r'{"a\u0000b": 1}')).status_code == 202
    found = [{"pointer": r"/a\u0000b", "code": "type", "detail": '1 is not of type "string"'}]
    assert WebhookRequest.objects.get(event=None).findings == found
    assert Event.objects.get().findings == found


@pytest.mark.parametrize(
    ("validation", "status", "findings"), [("off", 202, None), ("warn", 202, [FINDING]), ("enforce", 422, None)]
)
def test_a_published_payload_is_checked(publish, make_subscription, describe, validation, status, findings):
    describe(validation)
    make_subscription()
    answer = publish(event(BAD))
    assert answer.status_code == status
    if status == 422:
        assert answer.json() == problem(422, "payload_refused", REFUSED, FINDING | {"pointer": "/body/total"})
        assert publish(event(BAD), "/preview").json() == answer.json()
        assert not Event.objects.exists()
        return
    [stored] = Event.objects.all()
    assert stored.findings == findings
    [request] = WebhookRequest.objects.all()
    assert request.findings is None  # they are the event's


def test_a_batch_is_refused_with_a_pointer_to_every_event_that_does_not_fit(publish, describe):
    describe("enforce")
    describe("warn", "warned")
    payloads = [event('{"total": 5}'), event(BAD), event(BAD, "warned"), event("{}"), event(BAD, "unknown")]
    answer = publish(f'{{"events": [{", ".join(payloads)}]}}', "/batch")
    missing = {"pointer": "/events/3/body", "code": "required", "detail": '"total" is a required property'}
    errors = [FINDING | {"pointer": "/events/1/body/total"}, missing]
    assert (answer.status_code, answer.json()) == (422, problem(422, "payload_refused", REFUSED, *errors))
    assert not Event.objects.exists()


def test_a_batch_keeps_the_findings_of_each_event(publish, describe):
    describe("warn")
    publish(f'{{"events": [{event(BAD)}, {event(BAD, "unknown")}]}}', "/batch")
    assert [stored.findings for stored in Event.objects.order_by("id")] == [[FINDING], None]


def test_so_many_errors_of_a_batch_are_told(publish, describe):
    describe("enforce")
    answer = publish(f'{{"events": [{", ".join([event(BAD)] * 200)}]}}', "/batch")
    assert len(answer.json()["errors"]) == 100


def test_a_batch_whose_checks_take_too_long_is_given_up_and_nothing_is_stored(publish, describe, monkeypatch):
    describe("warn")
    monkeypatch.setattr(payload_checks, "CHECK_SECONDS", -1)
    assert publish(event(BAD)).status_code == 202
    answer = publish(f'{{"events": [{event(BAD)}, {event(BAD)}]}}', "/batch")
    detail = "The schemas of the event types take too long for this. Publish fewer or smaller events at once."
    assert (answer.status_code, answer.json()) == (422, problem(422, "too_slow", detail))
    assert Event.objects.count() == 1


def test_a_repeated_call_gets_the_first_answer_though_its_payload_would_be_refused_by_now(
    post_ingest, publish, make_subscription, describe
):
    body = ingest_body(make_subscription().id, body=BAD)
    calls = [
        lambda: post_ingest(body, signed_headers(body, **{"Idempotency-Key": "k"})).json(),
        lambda: publish(event(BAD), idempotency_key="k").json(),
    ]
    first = [call() for call in calls]
    describe("enforce")
    assert [call() for call in calls] == first
    assert post_ingest(body, signed_headers(body, **{"Idempotency-Key": "other"})).status == 422


def test_a_filter_is_asked_before_the_schema(post_ingest, make_subscription, describe):
    describe("enforce")
    body = ingest_body(make_subscription(filter={"body": {"total": 5}}).id, body=BAD)
    assert post_ingest(body).status == 204


def test_a_payload_that_cannot_be_read_does_not_fit(publish, describe):
    describe("enforce")
    answer = publish(event('{"total": ' + "9" * 5000 + "}"))
    detail = "The payload cannot be checked: it is nested too deeply, or has a number that is too large."
    error = {"pointer": "/body", "code": "unreadable", "detail": detail}
    assert (answer.status_code, answer.json()) == (422, problem(422, "payload_refused", REFUSED, error))


def test_a_number_is_checked_as_it_was_written(publish, describe):
    describe("enforce", schema={"properties": {"n": {"maximum": 9007199254740992}}})
    assert publish(event('{"n": 9007199254740992}')).status_code == 202
    assert publish(event('{"n": 9007199254740993}')).status_code == 422


def test_findings_are_shown_with_the_request_and_the_event(
    post_ingest, publish, client_with_key, make_subscription, describe
):
    describe("warn")
    subscription = make_subscription()
    request_id = post_ingest(ingest_body(subscription.id, body=BAD)).json()["request_id"]
    published = publish(event(BAD)).json()
    for each in (request_id, published["requests"][0]["request_id"]):
        assert client_with_key.get(f"/status/request/{each}").json()["findings"] == [FINDING]
        assert client_with_key.get(f"/requests/{each}").json()["findings"] == [FINDING]
    assert client_with_key.get(f"/events/{published['event_id']}").json()["findings"] == [FINDING]


# --- What a process remembers ------------------------------------------------------------


def test_the_types_are_read_once_for_many_calls_and_a_schema_once_for_each_change(publish, describe):
    described = describe("enforce")
    described.refresh_from_db()

    def queries_of_a_call():
        with CaptureQueriesContext(connection) as queries:
            publish(event(BAD))
        return [query["sql"] for query in queries if '"event_types"' in query["sql"]]

    assert len(queries_of_a_call()) == 2  # which there are, and the schemas that are new
    assert queries_of_a_call() == []
    schema_cache.clear()
    assert len(queries_of_a_call()) == 1
    described.save()
    assert len(queries_of_a_call()) == 2


def test_a_change_in_this_process_counts_at_once(publish, describe):
    described = describe("enforce")
    assert publish(event(BAD)).status_code == 422
    described.validation = "off"
    described.save()
    assert publish(event(BAD)).status_code == 202
    described.validation = "enforce"
    described.save()
    assert publish(event(BAD)).status_code == 422
    described.delete()
    assert publish(event(BAD)).status_code == 202


def test_a_change_elsewhere_counts_as_soon_as_what_was_read_is_stale(publish, describe, monkeypatch):
    described = describe("enforce")
    assert publish(event(BAD)).status_code == 422
    EventType.objects.filter(id=described.id).update(validation="off")
    assert publish(event(BAD)).status_code == 422
    monkeypatch.setattr(schema_cache, "SECONDS", -1)
    assert publish(event(BAD)).status_code == 202


def test_while_one_reads_the_others_go_on_with_what_there_is(monkeypatch):
    types = {}
    schema_cache.put(types, generation=schema_cache.generation())
    monkeypatch.setattr(schema_cache, "SECONDS", -1)
    assert schema_cache.fresh() is None  # this caller has to read
    assert schema_cache.fresh() is types
    schema_cache.end_reading()
    assert schema_cache.fresh() is None


def test_what_was_read_before_a_change_is_not_kept():
    generation = schema_cache.generation()
    schema_cache.clear()
    schema_cache.put({}, generation=generation)
    assert schema_cache.fresh() is None
    schema_cache.end_reading()


def test_a_stored_schema_that_cannot_be_used_hinders_nobody(publish, describe, caplog):
    describe("enforce", schema={"type": "objekt"})
    assert publish(event(BAD)).status_code == 202
    [record] = [each for each in caplog.records if each.name == "subscriptions.catalog"]
    assert (record.message, record.event_type) == ("the schema of an event type cannot be used", "invoice.paid")
    json.dumps(record.error)


@pytest.mark.django_db(transaction=True)
def test_schemas_are_read_again_after_the_database_was_away(describe, monkeypatch):
    payload_checks.findings_of("invoice.paid", BAD.encode())
    monkeypatch.setattr(schema_cache, "SECONDS", 0)
    connection.close()
    with monkeypatch.context() as away:
        away.setitem(connection.settings_dict, "HOST", "/nowhere")
        with pytest.raises(OperationalError):
            payload_checks.findings_of("invoice.paid", BAD.encode())
    describe("warn")
    schema_cache._read_at = time.monotonic()  # as in another process, which was not told of it
    assert payload_checks.findings_of("invoice.paid", BAD.encode()) == [FINDING]


def test_a_finding_is_short_however_long_the_names_of_a_payload_are(post_ingest, make_subscription, describe):
    describe("warn", schema={"additionalProperties": {"type": "integer"}})
    name = "~" * 15_000
    assert post_ingest(ingest_body(make_subscription().id, body=f'{{"{name}": "5"}}')).status == 202
    [finding] = WebhookRequest.objects.get().findings
    assert finding == FINDING | {"pointer": ("/" + "~0" * 15_000)[:500]}
