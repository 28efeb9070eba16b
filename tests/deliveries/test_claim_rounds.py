"""Whose turn it is: claims go round the subscriptions, and share what they take among them."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from deliveries import claims, walks
from subscriptions.models import Subscription
from tests import history
from tests.deliveries.claiming import claimed_ids

pytestmark = pytest.mark.django_db


def test_it_shares_a_claim_among_the_subscriptions_that_have_something_due(make_subscription, make_request):
    busy, quiet = make_subscription(), make_subscription()
    for _ in range(20):
        make_request(busy)
    small = make_request(quiet)
    ids = claimed_ids(10)
    assert small.id in ids
    assert len(ids) == 6  # half of ten for the busy one, and the only one of the quiet one


def test_it_goes_round_robin_from_where_the_last_claim_stopped(make_subscription, make_request):
    subscriptions = [make_subscription() for _ in range(4)]
    for subscription in subscriptions:
        for _ in range(2):
            make_request(subscription)
    visited = []
    after = None
    for _ in range(4):
        claim = claims.claim(2, after=after)
        visited.append(sorted(request.target.id for request in claim.requests))
        after = claim.stopped_after
    ids = [subscription.id for subscription in subscriptions]
    assert visited == [ids[:2], ids[2:], ids[:2], ids[2:]]


def test_it_looks_at_so_many_subscriptions_and_the_next_claim_goes_on_there():
    most = walks.WALK_LENGTH * claims.MOST_WALKS
    history.subscribe(most + 10)
    history.burst()
    ids = list(Subscription.objects.order_by("id").values_list("id", flat=True))
    first = claims.claim(10_000)
    assert sorted(request.target.id for request in first.requests) == ids[:most]
    second = claims.claim(10_000, after=first.stopped_after, until=first.until)
    assert sorted(request.target.id for request in second.requests) == ids[most:]
    assert (second.stopped_after, second.until) == (None, None)


@pytest.mark.parametrize("begin", range(5))
@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_round_visits_each_subscription_once_wherever_it_begins(
    make_subscription, make_request, monkeypatch, begin, length
):
    monkeypatch.setattr(walks, "WALK_LENGTH", length)
    subscriptions = [make_subscription(max_in_flight=1) for _ in range(5)]
    for subscription in subscriptions:
        make_request(subscription)
    ids = [subscription.id for subscription in subscriptions]
    in_turn = ids[begin + 1 :] + ids[: begin + 1]
    visited = []
    claim = claims.claim(100, after=subscriptions[begin].id)
    visited += _in_order(claim, in_turn)
    while claim.until is not None:
        claim = claims.claim(100, after=claim.stopped_after, until=claim.until)
        visited += _in_order(claim, in_turn)
    assert visited == in_turn


def _in_order(claim, ids):
    """Return the subscriptions of a claim, which come in any order, in this one."""
    return sorted((request.target.id for request in claim.requests), key=ids.index)


def test_every_subscription_has_its_turn_however_old_the_backlog_of_others(make_subscription, make_request):
    for _ in range(3):
        backlog = make_subscription()
        for _ in range(20):
            make_request(backlog, next_attempt_at=Now() - timedelta(days=1))
    fresh = make_request(make_subscription())
    claim = claims.claim(5)
    assert fresh.id in [request.id for request in claim.requests]
    assert claim.has_more


def test_equal_subscriptions_get_equal_shares(make_subscription, make_request):
    subscriptions = [make_subscription() for _ in range(30)]
    for subscription in subscriptions:
        for _ in range(5):
            make_request(subscription)
    claimed = [request.target.id for request in claims.claim(50).requests]
    assert {claimed.count(subscription.id) for subscription in subscriptions} == {1}
