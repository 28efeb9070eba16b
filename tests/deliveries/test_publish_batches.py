"""POST /events/batch: as many events as one call brings, all or nothing."""

import pytest

from deliveries import publishing
from deliveries.models import Event, WebhookRequest
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


def test_a_batch_of_too_many_types_for_so_many_subscriptions_is_refused(publish, make_subscription, monkeypatch):
    monkeypatch.setattr(publishing, "MAX_MATCHES", 3)
    for _ in range(2):
        make_subscription(filter={"body": 2})
    answer = publish({"events": [{"event_type": name, "body": 1} for name in "ab"]}, "/batch")
    detail = "The types of these events are taken more than 3 times. Publish them in smaller batches."
    assert answer.json() == problem(413, "too_large", detail)
    assert publish({"events": [{"event_type": "a", "body": 1}] * 2}, "/batch").status_code == 202


def test_each_subscription_gets_its_events_in_their_order_however_filters_are_read(
    publish, make_subscription, monkeypatch
):
    monkeypatch.setattr(publishing, "FILTERS_AT_ONCE", 2)
    filters = [None, {"body": {"$gte": 2}}, {"body": {"$lt": 2}}, None, {"event_type": "b"}]
    made = [make_subscription(filter=conditions, ordered=True) for conditions in filters]
    events = [{"event_type": name, "body": number} for number, name in enumerate("abab")]
    assert publish({"events": events}, "/batch").status_code == 202
    got = [
        [each.event.body for each in WebhookRequest.objects.filter(subscription=subscription).order_by("id")]
        for subscription in made
    ]
    everything = [b"0", b"1", b"2", b"3"]
    assert got == [everything, [b"2", b"3"], [b"0", b"1"], everything, [b"1", b"3"]]


def test_a_batch_whose_types_take_long_to_compare_is_given_up(publish, make_subscription, monkeypatch):
    monkeypatch.setattr(publishing, "MATCH_MS", 20)
    taken = [f"{number:03}.{'x' * 124}" for number in range(250)]
    for _ in range(20):
        make_subscription(event_types=taken)
    types = [f"{'a.' * 60}{number}" for number in range(500)]
    answer = publish({"events": [{"event_type": each, "body": 1} for each in types]}, "/batch")
    detail = "These events have too many types for the subscriptions. Publish fewer of them at once."
    assert answer.json() == problem(422, "too_slow", detail)
    assert not Event.objects.exists()
