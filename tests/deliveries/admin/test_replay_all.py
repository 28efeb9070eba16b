"""Replay of all that a list shows: an operation, once there are many."""

import re
from datetime import timedelta
from uuid import UUID

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deliveries import bulk_runs, operations, queue, replay_admin
from deliveries.models import Operation, WebhookRequest
from subscriptions.audit import AuditEntry
from subscriptions.ids import lowest_id_at
from tests import history
from tests.deliveries.admin.pages import REQUESTS, replay, shown
from tests.staff import messages_of, staff_client

pytestmark = pytest.mark.django_db


@pytest.fixture
def two_at_most(monkeypatch):
    """More than two requests are many."""
    monkeypatch.setattr(replay_admin, "REPLAY_LIMIT", 2)


def replay_all(client: Client, query: str, row: WebhookRequest, **fields: str):
    return replay(client, row, url=f"{REQUESTS}?{query}", select_across="1", **fields)


def test_it_starts_an_operation_over_all_that_a_list_shows_once_that_is_confirmed(
    operator, make_subscription, make_settled, make_request, two_at_most, django_capture_on_commit_callbacks
):
    subscription = make_subscription(tenant="acme")
    rows = [make_settled(subscription, error="timeout") for _ in range(3)]
    make_settled(subscription, error="dns")
    make_request(subscription, error="timeout")
    query = f"error=timeout&subscription__id__exact={subscription.id}"
    question = replay_all(operator, query, rows[0])
    every_status = "delivered or failed or canceled or skipped"
    assert question.context["sentences"] == (
        "3 requests will be delivered again in the background, to the target URLs that subscriptions have now.",
        f"They are selected by status: {every_status}, error: timeout, subscription: {subscription.id}.",
        "What is pending is left alone, and what is of a disabled or deleted subscription.",
    )
    assert not Operation.objects.exists()
    posted = dict(re.findall(r'type="hidden" name="([^"]+)" value="([^"]+)"', question.content.decode()))
    assert posted.pop("csrfmiddlewaretoken")

    with django_capture_on_commit_callbacks() as callbacks:
        response = operator.post(f"{REQUESTS}?{query}", posted, follow=True)
    operation = Operation.objects.get()
    page = reverse("admin:deliveries_operation_change", args=[operation.id])
    assert response.redirect_chain == [(f"{REQUESTS}?{query}", 302)]
    assert messages_of(response) == [f'They are delivered again by <a href="{page}">replay {operation.id}</a>.']
    assert operator.get(page).status_code == 200
    assert (operation.kind, operation.tenant, operation.requested_by) == ("replay", "acme", "operator")
    assert set(bulk_runs.selected(operation.selection)) == set(rows)
    assert queue.wake_maintenance in callbacks
    assert not WebhookRequest.objects.filter(trigger="replay").exists()
    entry = AuditEntry.objects.get(action="replay")
    assert (entry.actor, entry.object_kind, entry.object_id) == ("operator", "operation", str(operation.id))
    assert entry.after["selection"] == operation.selection


@pytest.mark.parametrize(
    "query",
    [
        "",
        "p=1",
        "within=hour",
        "status__exact=failed",
        "error=timeout",
        "q=invoice.paid",
        "q={subscription}",
        "q=https%3A%2F%2Fledger.example%2F",
        "tenant__exact=acme",
        "q=invoice.paid&status__exact=failed&within=day&error=timeout&subscription__id__exact={subscription}",
    ],
)
def test_its_operation_selects_what_the_list_shows(operator, make_subscription, make_settled, two_at_most, query):
    subscription, other = make_subscription("https://ledger.example/hooks", tenant="acme"), make_subscription()
    long_ago = timezone.now() - timedelta(days=2)
    for owner in (subscription, other):
        for fields in (
            *({"error": "timeout"} for _ in range(3)),
            {"error": "dns"},
            {"status": "delivered"},
            {"event_type": "invoice.sent"},
            {"id": UUID(int=lowest_id_at(long_ago).int + owner.id.int % 2**60), "received_at": long_ago},
        ):
            make_settled(owner, **fields)
    query = query.format(subscription=subscription.id)
    listed = shown(operator, f"{REQUESTS}?{query}")
    replay_all(operator, query, listed[0], confirmed="yes")
    operation = Operation.objects.get()
    assert set(bulk_runs.selected(operation.selection)) == set(listed)
    assert operation.tenant == ("acme" if {"tenant", "subscription"} & operation.selection.keys() else None)


@pytest.mark.parametrize(
    "query",
    [
        "error=any",
        "q=http%3A%2F%2F",
        "event__id__exact={event}",
        "q={subscription}&subscription__id__exact={subscription}",
    ],
)
def test_it_says_when_what_is_selected_cannot_be_written_as_filters(
    operator, make_subscription, make_settled, make_event, two_at_most, query
):
    subscription, event = make_subscription("http://127.0.0.1:9/"), make_event()
    make_subscription("http://127.0.0.1:10/")
    rows = [make_settled(subscription, error="dns", payload=None, event=event) for _ in range(3)]
    query = query.format(event=event.id, subscription=subscription.id)
    for response in (
        replay_all(operator, query, rows[0], confirmed="yes"),
        replay(operator, *rows, confirmed="yes"),
    ):
        assert messages_of(response) == [f"More than 2 requests are selected. {replay_admin.NO_FILTERS}"]
    assert not Operation.objects.exists()


@pytest.mark.parametrize("query", ["q=http%3A%2F%2F%00", "q=invoice.paid%00"])
def test_a_search_that_django_does_not_do_selects_nothing(
    operator, make_subscription, make_settled, two_at_most, query
):
    rows = [make_settled(make_subscription()) for _ in range(3)]
    refusal = f"More than 2 requests are selected. {replay_admin.NO_FILTERS}"
    assert refusal in messages_of(replay_all(operator, query, rows[0], confirmed="yes"))
    assert not Operation.objects.exists()


def test_it_starts_no_operation_over_what_would_not_be_sent(
    operator, make_subscription, make_settled, make_request, two_at_most
):
    disabled = make_subscription(status="disabled")
    rows = [make_settled(disabled) for _ in range(3)] + [make_request(make_subscription())]
    assert messages_of(replay_all(operator, "", rows[0], confirmed="yes")) == [replay_admin.NOTHING_SENT]
    assert not Operation.objects.exists()


def test_it_says_no_exact_number_of_very_many(operator):
    history.fill(10_100, size=10)
    row = WebhookRequest.objects.filter(status="failed").latest("id")
    [first, *_] = replay_all(operator, "", row).context["sentences"]
    assert first.startswith("More than 10000 requests will be delivered again in the background")


def test_it_starts_no_operation_for_who_may_not_replay(make_subscription, make_settled, two_at_most):
    subscription = make_subscription()
    rows = [make_settled(subscription) for _ in range(3)]
    replay_all(staff_client("view_webhookrequest"), "", rows[0], confirmed="yes")
    assert not Operation.objects.exists()


def test_it_asks_for_no_more_fields_than_django_takes(settings):
    assert operations.REPLAY_BATCH + 10 < settings.DATA_UPLOAD_MAX_NUMBER_FIELDS
