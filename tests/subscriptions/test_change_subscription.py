"""PATCH /subscriptions/{id}, ETag and If-Match."""

import threading
import uuid

import pytest
from django.db import connection, transaction

from subscriptions.models import Subscription
from tests.expected import REQUEST_ID, invalid, problem, subscription_body

URL = "https://example.com/hook"
STALE = problem(
    412,
    "precondition_failed",
    "The subscription was changed since it was read, or up to two seconds before. Wait two seconds, read it "
    "again, and send If-Match with its ETag.",
)


@pytest.fixture
def subscription(make_subscription):
    return make_subscription(URL)


@pytest.fixture
def change(client_with_key):
    """Patch a subscription; returns the answer."""

    def change(subscription, data, **headers):
        given = {"Request-Id": REQUEST_ID} | {name.replace("_", "-"): value for name, value in headers.items()}
        return client_with_key.patch(f"/subscriptions/{subscription.id}", data, format="json", headers=given)

    return change


CHANGES = {
    "description": "invoices",
    "metadata": {"team": "billing"},
    "filter": {"tenant": "acme"},
    "headers": {"X-Route": "a"},
    "target_url": "https://example.org/other",
    "event_types": ["invoice.*"],
    "retry_schedule": [],
    "timeout_seconds": 3,
    "max_in_flight": 2,
    "rate_limit": 0.5,
    "ordered": True,
}


def test_it_changes_everything_given(change, subscription):
    answer = change(subscription, CHANGES)
    before = subscription.updated_at
    subscription.refresh_from_db()
    assert answer.json() == subscription_body(subscription) | CHANGES
    assert answer.status_code == 200
    assert subscription.updated_at > before


@pytest.mark.parametrize("name", CHANGES)
def test_it_changes_one_field_and_no_other(change, subscription, name):
    row = Subscription.objects.values().get()
    change(subscription, {name: CHANGES[name]})
    changed = Subscription.objects.values().get()
    assert {each for each in row if row[each] != changed[each]} == {name, "updated_at"}


def test_it_changes_nothing_for_an_empty_object(change, subscription):
    answer = change(subscription, {})
    assert answer.json() == subscription_body(subscription)
    assert answer.status_code == 200


def test_it_does_not_undo_what_the_engine_notes_meanwhile(change, subscription):
    Subscription.objects.update(status="disabled", window_calls=7)
    change(subscription, {"description": "new"})
    subscription.refresh_from_db()
    assert (subscription.status, subscription.window_calls) == ("disabled", 7)


def test_it_is_seen_by_ingest_at_once(change, subscription):
    assert Subscription.objects.cached(subscription.id).event_types == []
    change(subscription, {"event_types": ["a"]})
    assert Subscription.objects.cached(subscription.id).event_types == ["a"]


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("tenant", "A subscription stays with its tenant."),
        ("secret", "POST /subscriptions/{id}/rotate-secret changes the secret."),
        ("status", "POST /subscriptions/{id}/pause, resume, enable and disable change the status."),
        *((name, "Only the service sets this field.") for name in ("id", "created_at", "updated_at", "circuit")),
    ],
)
def test_it_says_why_a_field_cannot_be_changed(change, subscription, name, detail):
    answer = change(subscription, {name: "x", "description": "new"})
    assert answer.json() == invalid((f"/{name}", "read_only", detail))
    subscription.refresh_from_db()
    assert subscription.description == ""


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"colour": "red"}, ("/colour", "unknown", "This field is not known.")),
        (
            {"target_url": "http://10.0.0.1/"},
            ("/target_url", "refused_url", "The host is an address that may not be called: only public ones may."),
        ),
        (
            {"timeout_seconds": 0},
            ("/timeout_seconds", "min_value", "Ensure this value is greater than or equal to 1."),
        ),
        ([], ("", "invalid", "Give a JSON object.")),
    ],
)
def test_it_refuses_what_a_new_subscription_could_not_be(change, subscription, data, error):
    answer = change(subscription, data)
    assert answer.json() == invalid(error)
    assert answer.status_code == 400


def test_it_answers_404_for_what_is_not_there_or_another_tenants(make_client, make_subscription):
    client = make_client(tenant="acme")
    for subscription_id in (uuid.uuid4(), make_subscription(tenant="globex").id):
        answer = client.patch(
            f"/subscriptions/{subscription_id}",
            {"description": "x"},
            format="json",
            headers={"Request-Id": REQUEST_ID},
        )
        assert answer.json() == problem(404, "not_found", "There is no such subscription.")


@pytest.mark.parametrize("scope", ["publish", "read"])
def test_it_wants_a_key_that_may_manage(make_client, subscription, scope):
    answer = make_client(scope).patch(f"/subscriptions/{subscription.id}", {}, format="json")
    assert answer.status_code == 403


def test_it_gives_the_same_etag_until_somebody_changes_something(client_with_key, change, subscription):
    def etag():
        return client_with_key.get(f"/subscriptions/{subscription.id}")["ETag"]

    first = etag()
    Subscription.objects.update(window_calls=3, failing_since=None)
    assert etag() == first
    assert change(subscription, {})["ETag"] == first
    second = change(subscription, {"description": "new"})["ETag"]
    assert second != first
    assert etag() == second
    assert client_with_key.post(f"/subscriptions/{subscription.id}/pause")["ETag"] == etag() != second


def test_it_changes_what_the_caller_has_seen_and_nothing_else(client_with_key, change, subscription):
    seen = client_with_key.get(f"/subscriptions/{subscription.id}")["ETag"]
    assert change(subscription, {"description": "mine"}, If_Match=seen).status_code == 200
    answer = change(subscription, {"description": "theirs"}, If_Match=seen)
    assert answer.json() == STALE
    assert (answer.status_code, answer["Retry-After"]) == (412, "2")
    subscription.refresh_from_db()
    assert subscription.description == "mine"


@pytest.mark.parametrize(
    ("if_match", "status"),
    [
        ("*", 200),
        ('"other", {}', 200),
        ("W/{}", 412),
        ('"other"', 412),
        ("", 412),
        ("nonsense", 412),
    ],
)
def test_it_reads_if_match_as_rfc_9110_says(client_with_key, change, subscription, if_match, status):
    seen = client_with_key.get(f"/subscriptions/{subscription.id}")["ETag"]
    answer = change(subscription, {"description": "new"}, If_Match=if_match.format(seen))
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("delete", ""),
        *(("post", f"/{verb}") for verb in ("pause", "resume", "enable", "disable", "rotate-secret")),
    ],
)
def test_it_compares_for_every_call_that_changes_something(client_with_key, subscription, method, path):
    call = getattr(client_with_key, method)
    url = f"/subscriptions/{subscription.id}{path}"
    before = Subscription.objects.values().get()
    answer = call(url, headers={"Request-Id": REQUEST_ID, "If-Match": '"1"'})
    assert answer.json() == STALE
    assert Subscription.objects.values().get() == before
    seen = client_with_key.get(f"/subscriptions/{subscription.id}")["ETag"]
    assert call(url, headers={"If-Match": seen}).status_code in (200, 204)


@pytest.mark.django_db(transaction=True)
def test_one_of_two_changes_at_once_wins(change, subscription, client_with_key):
    seen = client_with_key.get(f"/subscriptions/{subscription.id}")["ETag"]
    statuses = []

    def change_too(text):
        statuses.append(change(subscription, {"description": text}, If_Match=seen).status_code)
        connection.close()

    threads = [threading.Thread(target=change_too, args=(str(number),)) for number in range(4)]
    # They meet at the row's lock, so that each has read its If-Match before any has changed the row.
    with transaction.atomic():
        Subscription.objects.select_for_update().get()
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 412, 412, 412]
