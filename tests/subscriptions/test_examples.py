"""What /openapi.json shows as examples is what really happens."""

import pytest

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


def test_a_subscription_is_paused_and_disabled_as_in_the_examples(created, client_with_key):
    for verb, example in (("pause", examples.PAUSED), ("disable", examples.DISABLED)):
        body = {"reason": "Maintenance until noon"}
        answer = client_with_key.post(f"/subscriptions/{created['id']}/{verb}", body, format="json")
        assert answer.json() == of_now(example)


def test_a_secret_is_rotated_as_in_the_example(created, client_with_key):
    body = {"overlap_seconds": 3600, "secret": examples.SECRET}
    answer = client_with_key.post(f"/subscriptions/{created['id']}/rotate-secret", body, format="json").json()
    assert answer == of_now(examples.ROTATED, previous_secret_until=answer["previous_secret_until"])


def test_a_test_call_answers_the_fields_of_the_example(client_with_key, make_subscription, receiver):
    found = client_with_key.post(f"/subscriptions/{make_subscription(receiver.url).id}/test").json()
    assert list(found) == list(delivery_examples.TRIAL)
