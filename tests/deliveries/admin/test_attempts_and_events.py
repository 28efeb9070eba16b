"""The admin's lists of attempts and of events."""

from datetime import timedelta

import pytest
from django.utils import timezone

from subscriptions.ids import lowest_id_at
from subscriptions.models import new_id
from tests.deliveries.admin.pages import ATTEMPTS, EVENTS, page_of, shown

pytestmark = pytest.mark.django_db


def test_it_lists_attempts_as_they_were_made_with_lost_ones_among_them(
    operator, make_subscription, make_request, make_due, receiver, deliver
):
    request = make_request(make_subscription(receiver.url), lease_token=new_id(), attempt_count=1)
    make_due(request)
    deliver()
    deliver_again = make_request(make_subscription(receiver.url))
    deliver()
    attempts = shown(operator, ATTEMPTS)
    assert [(attempt.request_id, attempt.attempt_number, attempt.error) for attempt in attempts] == [
        (deliver_again.id, 1, ""),
        (request.id, 2, ""),
        (request.id, 1, "worker_lost"),
    ]
    assert [attempt.id.version for attempt in attempts] == [7, 7, 7]


def test_it_finds_and_filters_attempts(operator, make_subscription, make_settled, make_attempt):
    first, second = make_settled(make_subscription()), make_settled(make_subscription())
    failed = make_attempt(first, error="timeout", status_code=None)
    delivered = make_attempt(second, success=True, error="", status_code=200)
    long_ago = timezone.now() - timedelta(days=2)
    old = make_attempt(second, 2, id=lowest_id_at(long_ago), attempted_at=long_ago)
    assert shown(operator, ATTEMPTS, q=str(first.id)) == [failed]
    assert shown(operator, ATTEMPTS, q="timeout") == []
    assert shown(operator, ATTEMPTS, success__exact="1") == [delivered]
    assert shown(operator, ATTEMPTS, error__exact="timeout") == [failed]
    assert shown(operator, ATTEMPTS, within="day") == [delivered, failed]
    assert shown(operator, ATTEMPTS, within="week") == [delivered, failed, old]
    assert shown(operator, ATTEMPTS, subscription__id__exact=str(first.subscription_id)) == [failed]


def test_it_shows_events_and_leads_to_their_requests(operator, make_event):
    event = make_event(tenant="acme")
    other = make_event()
    assert shown(operator, EVENTS) == [other, event]
    assert shown(operator, EVENTS, q=str(event.id)) == [event]
    assert shown(operator, EVENTS, q="invoice.paid", within="hour") == [other, event]
    assert shown(operator, EVENTS, q="invoice") == []
    content = operator.get(page_of(event)).content.decode()
    assert f"/admin/deliveries/webhookrequest/?event__id__exact={event.id}" in content
    assert "acme" in content
