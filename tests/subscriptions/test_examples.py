"""What /openapi.json shows as examples is what really happens."""

import pytest

from deliveries import event_views
from deliveries import examples as delivery_examples
from subscriptions import examples
from subscriptions.models import Subscription
from tests.expected import rfc3339


@pytest.fixture
def created(client_with_key):
    answer = client_with_key.post("/subscriptions", examples.NEW | {"secret": examples.SECRET}, format="json")
    assert answer.status_code == 201
    return answer.json()


def of_now(example, **fields):
    """Return an example with what differs from call to call as it is now."""
    subscription = Subscription.objects.get()
    changing = {
        "id": str(subscription.id),
        "created_at": rfc3339(subscription.created_at),
        "updated_at": rfc3339(subscription.updated_at),
    }
    return example | changing | fields


def test_a_subscription_is_created_and_shown_as_in_the_examples(created, client_with_key):
    assert created == of_now(examples.SHOWN, secret=examples.SECRET)
    assert client_with_key.get(f"/subscriptions/{created['id']}").json() == of_now(examples.SHOWN)


def test_a_subscription_changes_its_status_as_in_the_examples(created, client_with_key):
    moves = {
        "pause": examples.PAUSED,
        "resume": examples.RESUMED,
        "disable": examples.DISABLED,
        "enable": examples.ENABLED,
    }
    for verb, example in moves.items():
        body = {"reason": example["status_reason"]}
        answer = client_with_key.post(f"/subscriptions/{created['id']}/{verb}", body, format="json")
        assert answer.json() == of_now(example)


def test_a_secret_is_rotated_as_in_the_example(created, client_with_key):
    body = {"overlap_seconds": 3600, "secret": examples.NEXT_SECRET}
    answer = client_with_key.post(f"/subscriptions/{created['id']}/rotate-secret", body, format="json").json()
    assert answer == of_now(examples.ROTATED, previous_secret_until=answer["previous_secret_until"])


def test_an_event_is_previewed_and_published_as_in_the_examples(created, client_with_key):
    def ask(path, body):
        answer = client_with_key.post(path, body, format="json")
        assert answer.status_code in (200, 202)
        return answer.json()

    [forecast] = ask("/events/preview", event_views.SMALL_EVENT_EXAMPLE)["subscriptions"]
    assert forecast == event_views.IGNORING_EXAMPLE | {"subscription_id": created["id"]}
    events = [event_views.EVENT_EXAMPLE, event_views.SMALL_EVENT_EXAMPLE]
    taken, ignored = ask("/events/batch", {"events": events})["events"]
    [made], [expected] = taken["requests"], event_views.PUBLISHED_EXAMPLE["requests"]
    assert made == expected | {"subscription_id": created["id"], "request_id": made["request_id"]}
    assert ignored == event_views.IGNORED_EXAMPLE | {"event_id": ignored["event_id"]}


def test_a_test_call_answers_the_fields_of_the_example(client_with_key, make_subscription, receiver):
    found = client_with_key.post(f"/subscriptions/{make_subscription(receiver.url).id}/test").json()
    assert list(found) == list(delivery_examples.TRIAL)
