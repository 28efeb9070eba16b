"""The admin's list of requests: what it shows, finds and filters."""

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from subscriptions.ids import lowest_id_at
from subscriptions.models import new_id
from tests.deliveries.admin.pages import REQUESTS, page_of, shown

pytestmark = pytest.mark.django_db


def test_it_lists_requests_newest_first(operator, make_subscription, make_request, make_settled):
    active, paused = make_subscription(description="the active one"), make_subscription(status="paused")
    token = new_id()
    rows = [
        make_request(active),
        make_request(active, attempt_count=1),
        make_request(active, trigger="replay", attempt_count=2),
        make_request(active, lease_token=token, attempt_count=1),
        make_request(paused),
        make_settled(active, "delivered"),
        make_settled(active, error="timeout", attempt_count=6),
    ]
    response = operator.get(REQUESTS)
    assert list(response.context["cl"].result_list) == rows[::-1]
    content = response.content.decode()
    assert re.findall(r'class="field-standing">([^<]*)<', content) == [
        "failed",
        "delivered",
        "pending, held: paused",
        "pending, in flight",
        "pending, replaying",
        "pending, retrying",
        "pending",
    ]
    assert content.count("the active one") == 6
    assert f"{rows[0].next_attempt_at:%Y-%m-%d %H:%M:%S}" in content


def test_it_says_in_words_what_an_open_circuit_holds(operator, make_subscription, make_request):
    make_request(make_subscription(circuit_opened_at=timezone.now()))
    assert "pending, held: circuit open" in operator.get(REQUESTS).content.decode()


def test_it_asks_no_more_for_many_ordered_requests_than_for_two(operator, make_subscription, make_request):
    def count_queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert "pending, held: ordered" in operator.get(REQUESTS).content.decode()
        return len(captured)

    subscription = make_subscription(ordered=True)
    for _ in range(2):
        make_request(subscription)
    few = count_queries()
    for _ in range(20):
        make_request(subscription)
    assert count_queries() == few


def test_it_finds_requests_by_exact_ids_event_type_or_target_url(
    operator, make_subscription, make_request, make_event
):
    one, two = make_subscription("https://one.example.com/hook"), make_subscription("https://two.example.com/")
    first, second = make_request(one), make_request(two, event_type="refund.made")
    event = make_event()
    third = make_request(two, payload=None, event=event, event_type="order.made")
    assert shown(operator, REQUESTS, q=str(first.id)) == [first]
    assert shown(operator, REQUESTS, q=f" {str(second.id).upper()} ") == [second]
    assert shown(operator, REQUESTS, q=str(two.id)) == [third, second]
    assert shown(operator, REQUESTS, q="refund.made") == [second]
    assert shown(operator, REQUESTS, q="refund") == []
    assert shown(operator, REQUESTS, q="https://one.example") == [first]
    assert shown(operator, REQUESTS, q=str(new_id())) == []
    assert shown(operator, REQUESTS, event__id__exact=str(event.id)) == [third]
    assert shown(operator, REQUESTS, subscription__id__exact=str(one.id)) == [first]


def test_a_subscription_leads_to_what_its_tenant_was_sent(operator, make_subscription, make_request):
    one, two = (make_subscription(tenant="a & b") for _ in range(2))
    rows = [make_request(one), make_request(two)]
    make_request(make_subscription(tenant="a"))

    def links_of(subscription) -> list[str]:
        page = operator.get(f"/admin/subscriptions/subscription/{subscription.id}/change/").content.decode()
        return re.findall(r'href="([^"]*)">All requests of the tenant<', page)

    [link] = links_of(one)
    assert shown(operator, link) == rows[::-1]
    assert f'href="{link}">a &amp; b<' in operator.get(page_of(rows[0])).content.decode()
    assert links_of(make_subscription()) == []


def test_it_filters_requests_by_status_error_and_time(operator, make_subscription, make_settled, make_request):
    subscription = make_subscription()
    timed_out = make_settled(subscription, error="timeout")
    retrying = make_request(subscription, error="dns", attempt_count=1)
    delivered = make_settled(subscription, "delivered")
    two_hours_ago = timezone.now() - timedelta(hours=2)
    old = make_settled(
        subscription,
        "delivered",
        id=UUID(int=lowest_id_at(two_hours_ago).int + 1),
        received_at=two_hours_ago,
    )
    assert shown(operator, REQUESTS, status__exact="delivered") == [delivered, old]
    assert shown(operator, REQUESTS, error="any") == [retrying, timed_out]
    assert shown(operator, REQUESTS, error="timeout") == [timed_out]
    assert shown(operator, REQUESTS, within="hour") == [delivered, retrying, timed_out]
    assert shown(operator, REQUESTS, within="day") == [delivered, retrying, timed_out, old]
    assert shown(operator, REQUESTS, within="day", status__exact="delivered", error="any") == []


def test_it_knows_the_lowest_id_of_a_moment():
    before = datetime.now(UTC)
    made = new_id()
    after = datetime.now(UTC) + timedelta(milliseconds=1)
    assert lowest_id_at(before) <= made < lowest_id_at(after)
