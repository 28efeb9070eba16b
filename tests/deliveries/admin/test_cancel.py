"""Cancel by hand: it asks first, and no more than 500 at once."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError, connection
from django.test import Client

from deliveries.models import WebhookRequest
from subscriptions.audit import AuditEntry
from tests.deliveries.admin.pages import REQUESTS, page_of
from tests.deliveries.locks import lock_of, wait_until_waited_for
from tests.staff import messages_of, staff_client

pytestmark = pytest.mark.django_db


def cancel(client: Client, *rows: WebhookRequest, **fields: str):
    data = {"action": "cancel", "_selected_action": [str(row.id) for row in rows]} | fields
    return client.post(REQUESTS, data, follow=True)


def test_it_cancels_pending_requests_once_that_is_confirmed(
    operator, make_subscription, make_request, make_settled
):
    subscription = make_subscription()
    pending, settled = make_request(subscription), make_settled(subscription)
    question = cancel(operator, pending, settled)
    assert question.context["sentences"] == ["1 request will be canceled: not tried again, unless it is replayed."]
    pending.refresh_from_db()
    assert pending.status == "pending"

    response = cancel(operator, pending, settled, confirmed="yes")
    assert messages_of(response) == ["Canceled 1 request."]
    for row in (pending, settled):
        row.refresh_from_db()
    assert (pending.status, pending.status_reason) == ("canceled", "canceled by an operator")
    assert settled.status == "failed"
    assert AuditEntry.objects.get(action="cancel").object_id == str(pending.id)
    assert messages_of(cancel(operator, pending, confirmed="yes")) == ["None of these is pending."]


def test_a_page_offers_to_cancel_what_is_pending_and_to_replay_what_is_not(
    operator, make_subscription, make_request, make_settled
):
    subscription = make_subscription()
    pending, settled = make_request(subscription), make_settled(subscription)

    def offers(row: WebhookRequest) -> list[bool]:
        content = operator.get(page_of(row)).content.decode()
        return [f'<input type="submit" value="{label}">' in content for label in ("Cancel", "Replay")]

    assert (offers(pending), offers(settled)) == ([True, False], [False, True])
    response = cancel(operator, pending, confirmed="yes")
    assert response.redirect_chain == [(page_of(pending), 302)]
    assert offers(pending) == [False, True]
    content = staff_client("view_webhookrequest").get(page_of(make_request(subscription))).content.decode()
    assert 'value="Cancel"' not in content


def test_it_cancels_no_more_than_500_at_once_and_says_what_to_do_instead(operator, make_subscription):
    subscription = make_subscription()
    rows = WebhookRequest.objects.bulk_create(
        WebhookRequest(subscription=subscription, event_type="invoice.paid", payload=b"1") for _ in range(501)
    )
    response = cancel(operator, rows[0], select_across="1", confirmed="yes")
    [message] = messages_of(response)
    assert message == (
        "Nothing was canceled: more than 500 of these are pending. Narrow the list by its filters, or select page "
        "by page. To have a subscription's requests wait, pause or disable it; deleting it, over the API, cancels "
        "all of them."
    )
    assert WebhookRequest.objects.filter(status="pending").count() == 501


@pytest.mark.django_db(transaction=True)
def test_it_cancels_what_a_worker_had_locked_the_other_way_round(operator, make_subscription, make_request):
    subscription = make_subscription()
    first, second = sorted((make_request(subscription), make_request(subscription)), key=lambda row: row.id)
    lock = lock_of(second)

    def cancel_both():
        with contextlib.closing(connection):
            return cancel(operator, first, second, confirmed="yes")

    with ThreadPoolExecutor() as threads:
        response = threads.submit(cancel_both)
        wait_until_waited_for(0)
        # From here on each waits for the other. After a second of it the database may settle it either way.
        with contextlib.suppress(OperationalError), lock.cursor() as cursor:
            cursor.execute("SELECT 1 FROM webhook_requests WHERE id = %s FOR UPDATE", [first.id])
        lock.close()
        assert messages_of(response.result()) == ["Canceled 2 requests."]
    assert AuditEntry.objects.filter(action="cancel").count() == 2
