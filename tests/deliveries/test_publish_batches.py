"""POST /events/batch: as many events as one call brings, all or nothing."""

import pytest

from deliveries import publishing
from deliveries.models import Event
from tests.expected import EVENT_TYPE_RULE, invalid, problem

pytestmark = pytest.mark.django_db


def test_a_batch_is_answered_in_its_order(publish, make_subscription):
    both, one = make_subscription(event_types=["a", "b"]), make_subscription(event_types=["b"], tenant="acme")
    events = [{"event_type": kind, "body": n} for n, kind in enumerate("abcab")]
    events[4]["tenant"] = "acme"
    answer = publish({"events": events}, "/batch")
    stored = {str(event.id): event for event in Event.objects.all()}
    told = [stored[each["event_id"]] for each in answer.json()["events"]]
    assert answer.status_code == 202
    assert [(event.event_type, event.body, event.tenant) for event in told] == [
        ("a", b"0", ""),
        ("b", b"1", ""),
        ("c", b"2", ""),
        ("a", b"3", ""),
        ("b", b"4", "acme"),
    ]
    taken = [[made["subscription_id"] for made in each["requests"]] for each in answer.json()["events"]]
    assert taken == [[str(both.id)], [str(both.id)], [], [str(both.id)], [str(one.id)]]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"events": []}, ("/events", "invalid_length", "A batch has 1 to 1000 events.")),
        ({"events": [1] * 1001}, ("/events", "invalid_length", "A batch has 1 to 1000 events.")),
        (
            {"events": [{"event_type": "a", "body": 1}, 2]},
            ("/events/1", "invalid", "Expected `object`, got `int`"),
        ),
        (
            {"events": [{"event_type": "a", "body": 1}, {"event_type": "?", "body": 1}]},
            ("/events/1/event_type", "invalid_event_type", EVENT_TYPE_RULE),
        ),
        ({"events": {}}, ("/events", "invalid", "Expected `array`, got `object`")),
        ({"event": []}, ("/event", "unknown", "This field is not known.")),
    ],
)
def test_a_batch_with_one_bad_event_stores_none(publish, body, error):
    answer = publish(body, "/batch")
    assert (answer.status_code, answer.json()) == (400, invalid(error))
    assert not Event.objects.exists()


def test_a_batch_that_would_make_too_many_requests_is_refused(publish, make_subscription, monkeypatch):
    monkeypatch.setattr(publishing, "MAX_REQUESTS", 3)
    make_subscription()
    make_subscription()
    answer = publish({"events": [{"event_type": "a", "body": 1}] * 2}, "/batch")
    detail = "These events would make more than 3 requests. Publish them in smaller batches."
    assert answer.status_code == 413
    assert answer.json() == problem(413, "too_large", detail)
    assert not Event.objects.exists()
