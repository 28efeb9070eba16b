"""POST /events when the database goes away, or changes between two of its statements."""

import json

import pytest
from django.db import connection
from django.db.models.functions import Now

from deliveries import idempotency, publishing, sql
from deliveries.models import Event, WebhookRequest
from deliveries.publishing import NewEvent
from subscriptions.ids import new_id
from tests.deliveries import unsure_postgresql
from tests.expected import problem

pytestmark = pytest.mark.django_db


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("key_text", [None, "k"])
def test_a_commit_of_which_nobody_knows_is_not_made_twice(make_subscription, key_text):
    make_subscription()
    headers = {} if key_text is None else {"Idempotency-Key": key_text}
    key = idempotency.Key.of_publish(headers, None, b"the body")
    with unsure_postgresql.only_by_way_of_one() as unsure:
        answer = publishing.publish_call([NewEvent(event_type="a", payload=b"1")], key, is_batch=False)
    assert unsure.commits == 2
    [event], [row] = Event.objects.all(), WebhookRequest.objects.all()
    assert json.loads(answer.body) == {
        "event_id": str(event.id),
        "requests": [
            {"subscription_id": str(row.subscription_id), "request_id": str(row.id), "status": "pending"}
        ],
    }
    assert not answer.is_replayed


@pytest.mark.django_db(transaction=True)
def test_it_answers_503_while_the_database_is_away_and_then_202(publish, client_with_key, settings, monkeypatch):
    event = {"event_type": "a", "body": 1}
    settings.DEBUG = True
    client_with_key.credentials()  # without a key nothing but the publishing needs the database
    with monkeypatch.context() as away:
        connection.close()
        away.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        away.setitem(connection.settings_dict, "PORT", 1)
        answers = [
            publish(event),
            publish({"events": [event]}, "/batch"),
            publish(event, idempotency_key="k"),
        ]
    for answer in answers:
        assert (answer.status_code, answer["Retry-After"]) == (503, "2")
        assert answer.json() == problem(
            503, "unavailable", "The service cannot store anything right now. Try again."
        )
    assert publish(event).status_code == 202
    assert Event.objects.count() == 1


def test_subscriptions_disabled_or_deleted_since_the_match_get_a_skipped_request(make_subscription):
    gone, disabled = make_subscription(), make_subscription()
    event = NewEvent(event_type="a", payload=b"1")
    sql.run(publishing.INSERT_EVENTS, publishing._event_columns([event]))
    type(gone).objects.filter(id=gone.id).update(deleted_at=Now())
    type(gone).objects.filter(id=disabled.id).disable()
    parameters = {
        "ids": [new_id(), new_id()],
        "event_ids": [event.id, event.id],
        "subscription_ids": [gone.id, disabled.id],
        "event_types": ["a", "a"],
        "reason": publishing.DISABLED,
    }
    assert [row[3] for row in sql.run(publishing.INSERT_REQUESTS, parameters)] == ["skipped", "skipped"]
