"""Leases that ran out: the attempt is logged as lost, and what may have killed its workers is tried with care."""

import pytest

from deliveries import claims, settlements
from deliveries.models import WebhookRequest
from tests.deliveries.claiming import FAILURE, claimed_ids, log_of, settlement

pytestmark = pytest.mark.django_db


def test_it_logs_a_lost_attempt_and_takes_the_request_again_when_a_lease_runs_out(
    make_subscription, make_request, make_due
):
    request = make_request(make_subscription())
    claims.claim(10)
    make_due(request)
    (again,) = claims.claim(10).requests
    assert (again.attempt_number, again.trigger) == (2, "retry")
    assert log_of(request) == [(1, "initial", False, None, "worker_lost")]


def test_it_does_not_count_a_lost_attempt_against_the_retry_schedule(make_subscription, make_request, make_due):
    request = make_request(make_subscription())
    claims.claim(10)
    make_due(request)
    (again,) = claims.claim(10).requests
    assert again.failure_count == 0


def test_it_fails_a_request_that_lost_three_workers_in_a_row(make_subscription, make_request, make_due):
    subscription = make_subscription()
    poison, healthy = make_request(subscription), make_request(subscription)
    for _ in range(3):
        assert poison.id in claimed_ids()
        make_due(poison)
    assert poison.id not in claimed_ids()
    poison.refresh_from_db()
    assert (poison.status, poison.error, poison.attempt_count) == ("failed", "worker_lost", 3)
    assert [number for number, *_ in log_of(poison)] == [1, 2, 3]
    assert WebhookRequest.objects.get(id=healthy.id).status == "pending"


def test_before_their_last_chance_requests_are_tried_one_at_a_time(make_subscription, make_request, make_due):
    requests = [make_request(make_subscription()) for _ in range(4)]
    for _ in range(2):
        assert len(claimed_ids()) == 4
        for request in requests:
            make_due(request)
    fresh = make_request(make_subscription())
    claim = claims.claim(10).requests
    assert len(claim) == 2
    assert [request.id for request in claim if not request.is_suspect] == [fresh.id]
    assert claims.claim(10, with_suspect=False).requests == []
    suspect = next(request for request in claim if request.is_suspect)
    settlements.settle([settlement(suspect)])
    assert WebhookRequest.objects.get(id=suspect.id).lost_count == 0
    assert [request.is_suspect for request in claims.claim(10).requests] == [True]


def test_it_counts_lost_workers_only_in_a_row(make_subscription, make_request, make_due):
    request = make_request(make_subscription())
    for _ in range(2):
        claims.claim(10)
        make_due(request)
    (claimed,) = claims.claim(10).requests
    settlements.settle([settlement(claimed, FAILURE, delay=1.0)])
    request.refresh_from_db()
    assert request.lost_count == 0


def test_what_was_in_flight_at_a_cancel_and_never_heard_of_again_is_logged_as_lost_by_a_replay(
    make_subscription, make_request
):
    request = make_request(make_subscription())
    claims.claim(10)
    WebhookRequest.objects.filter(id=request.id).cancel()
    assert log_of(request) == []
    assert WebhookRequest.objects.replay() == 1
    (again,) = claims.claim(10).requests
    assert (again.attempt_number, again.trigger) == (2, "replay")
    assert log_of(request) == [(1, "initial", False, None, "worker_lost")]


def test_suspects_do_not_hold_up_the_rest_of_their_subscription(make_subscription, make_request):
    subscription = make_subscription(max_in_flight=4)
    for request in [make_request(subscription) for _ in range(4)]:
        WebhookRequest.objects.filter(id=request.id).update(lost_count=2)
    others = [make_request(subscription) for _ in range(4)]
    ids = claimed_ids()
    assert set(ids) & {request.id for request in others}
    assert len(ids) == 4
    assert sum(request.lost_count == 2 for request in WebhookRequest.objects.filter(id__in=ids)) <= 1
