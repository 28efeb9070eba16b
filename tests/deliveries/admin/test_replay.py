"""Replay by hand: it asks first, and says what it does."""

import re
from uuid import UUID

import pytest
from django.db import connection
from django.utils import timezone

from deliveries.models import WebhookRequest
from subscriptions.audit import AuditEntry
from subscriptions.models import new_id
from tests.deliveries.admin.pages import REQUESTS, page_of, replay
from tests.receiver import Answer
from tests.staff import messages_of

pytestmark = pytest.mark.django_db


def test_it_replays_a_request_once_that_is_confirmed(operator, make_subscription, make_request, receiver, deliver):
    receiver.otherwise = Answer(status=500)
    request = make_request(make_subscription(receiver.url, retry_schedule=[]))
    deliver()
    assert 'value="Replay"' in operator.get(page_of(request)).content.decode()

    question = replay(operator, request).content.decode()
    assert "1 request will be delivered again, to the target URL that the subscription has now." in question
    assert "csrfmiddlewaretoken" in question
    request.refresh_from_db()
    assert request.status == "failed"

    receiver.otherwise = Answer()
    response = replay(operator, request, confirmed="yes")
    assert response.redirect_chain == [(page_of(request), 302)]
    assert messages_of(response) == ["1 request will be delivered again."]
    deliver()
    assert list(request.attempts.order_by("attempt_number").values_list("trigger", "success")) == [
        ("initial", False),
        ("replay", True),
    ]
    entry = AuditEntry.objects.get(action="replay")
    assert (entry.actor, entry.object_kind, entry.object_id) == ("operator", "webhook request", str(request.id))
    assert (entry.before["status"], entry.after["status"]) == ("failed", "pending")


def test_it_says_how_many_of_the_selected_will_be_replayed(
    operator, make_subscription, make_settled, make_request
):
    subscription = make_subscription()
    settled = [make_settled(subscription), make_settled(subscription, "delivered")]
    pending, untouched = make_request(subscription), make_settled(subscription)
    filtered = f"{REQUESTS}?within=hour"

    question = replay(operator, *settled, pending, url=filtered)
    assert question.context["sentences"] == [
        "2 requests will be delivered again, to the target URL that the subscription has now.",
        "1 request will be left alone, because pending means still to be delivered.",
    ]
    ids = [UUID(row_id) for row_id in re.findall(r'_selected_action" value="([^"]+)"', question.content.decode())]
    assert ids == sorted(row.id for row in (*settled, pending))

    response = replay(operator, *settled, pending, url=filtered, confirmed="yes")
    assert response.redirect_chain == [(filtered, 302)]
    assert messages_of(response) == ["2 requests will be delivered again."]
    assert set(WebhookRequest.objects.filter(trigger="replay", status="pending")) == set(settled)
    untouched.refresh_from_db()
    assert untouched.status == "failed"


@pytest.mark.parametrize("confirmed", [{}, {"confirmed": "yes"}])
def test_it_refuses_to_replay_a_pending_request(operator, make_subscription, make_request, confirmed):
    request = make_request(make_subscription())
    response = replay(operator, request, **confirmed)
    assert messages_of(response) == [
        "Nothing was replayed: a pending request is still to be delivered and needs no replay."
    ]
    request.refresh_from_db()
    assert request.trigger == "initial"
    assert AuditEntry.objects.filter(action="replay").count() == 0


def test_it_replays_nothing_that_it_does_not_record(operator, make_subscription, make_settled, make_request):
    subscription = make_subscription()
    settled, pending = make_settled(subscription), make_request(subscription)

    def settle_as_rows_are_locked(execute, sql, *args):
        if "FOR NO KEY UPDATE" in sql:
            late = WebhookRequest.objects.filter(id=pending.id)
            late.update(status="failed", settled_at=timezone.now(), next_attempt_at=None)
        return execute(sql, *args)

    with connection.execute_wrapper(settle_as_rows_are_locked):
        response = replay(operator, settled, pending, confirmed="yes")
    assert messages_of(response) == ["1 request will be delivered again."]
    assert [row.id for row in WebhookRequest.objects.filter(trigger="replay")] == [settled.id]
    assert [entry.object_id for entry in AuditEntry.objects.filter(action="replay")] == [str(settled.id)]
    pending.refresh_from_db()
    assert pending.status == "failed"


def test_it_replays_nothing_when_the_selected_requests_are_gone(operator, make_subscription, make_settled):
    other = make_settled(make_subscription())
    gone = WebhookRequest(id=new_id())
    assert messages_of(replay(operator, gone, confirmed="yes"))[0].startswith("Nothing was replayed")
    other.refresh_from_db()
    assert other.status == "failed"


def test_it_leaves_out_requests_of_deleted_subscriptions(operator, make_subscription, make_settled):
    deleted = make_subscription()
    gone, wanted = make_settled(deleted), make_settled(make_subscription())
    deleted.remove()
    assert replay(operator, gone, wanted).context["sentences"] == [
        "1 request will be delivered again, to the target URL that the subscription has now.",
        "1 request will be left alone, because the subscription was deleted.",
    ]
    assert messages_of(replay(operator, gone, wanted, confirmed="yes")) == ["1 request will be delivered again."]
    assert messages_of(replay(operator, gone, confirmed="yes")) == [
        "Nothing was replayed: what is pending needs no replay, and to a deleted subscription nothing is sent."
    ]
    assert WebhookRequest.objects.get(status="pending") == wanted
