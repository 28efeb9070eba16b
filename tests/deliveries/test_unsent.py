"""What was claimed and is not sent is given back: claims whose answers were lost, or came too late."""

import pytest
from django.db import OperationalError

from deliveries import claims, sql, tasks, unsent, worker
from deliveries.leases import MAX_LOST_IN_A_ROW
from deliveries.models import DeliveryAttempt, WebhookRequest
from deliveries.unsent import UnansweredClaims
from subscriptions.ids import new_id
from tests import history
from tests.deliveries import unsure_postgresql
from tests.plans import nodes_of

pytestmark = pytest.mark.django_db


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("fresh_worker")
def test_claims_whose_answers_were_lost_cost_neither_time_nor_attempts(make_subscription, make_request, receiver):
    """However often: none counts as a worker that the request may have killed."""
    tasks.deliver_due()  # the heartbeat is not due for some seconds now
    request = make_request(make_subscription(receiver.url))
    with unsure_postgresql.only_by_way_of_one(losing=MAX_LOST_IN_A_ROW + 1) as unsure:
        for _ in range(unsure.losing):
            with pytest.raises(OperationalError):
                tasks.deliver_due()
            assert WebhookRequest.objects.get().lease_token is not None
        assert tasks.deliver_due() == 1
    assert list(DeliveryAttempt.objects.values_list("attempt_number", "error")) == [(1, "")]
    request.refresh_from_db()
    assert (request.status, request.lost_count) == ("delivered", 0)
    assert receiver.arrivals[0].headers["X-Webhook-Attempt"] == "1"


def test_what_is_given_back_is_as_it_was_and_due(make_subscription, make_request):
    request = make_request(make_subscription(max_in_flight=1))
    for _ in range(2):
        claimed = claims.claim(10).requests
        assert [one.attempt_number for one in claimed] == [1]
        unsent.give_back(claimed)
    after = WebhookRequest.objects.get()
    assert after.is_due
    assert (after.attempt_count, after.lease_token, after.lost_count) == (0, None, 0)
    assert after.trigger == request.trigger


def test_what_is_given_back_keeps_its_place_in_an_ordered_subscription(make_subscription, make_request):
    subscription = make_subscription(ordered=True)
    first, _ = make_request(subscription), make_request(subscription)
    for _ in range(2):
        claimed = claims.claim(10).requests
        assert [one.id for one in claimed] == [first.id]
        unsent.give_back(claimed)


def test_no_more_than_what_it_names_is_given_back(make_subscription, make_request):
    for _ in range(3):
        make_request(make_subscription())
    first, second, third = claims.claim(10).requests
    unsent.give_back([second])
    tokens = dict(WebhookRequest.objects.values_list("id", "lease_token"))
    assert tokens == {first.id: first.lease_token, second.id: None, third.id: third.lease_token}


def test_what_another_has_claimed_since_is_left_to_it(make_subscription, make_request, make_due):
    request = make_request(make_subscription())
    (stale,) = claims.claim(10).requests
    make_due(request)
    (current,) = claims.claim(10).requests
    unanswered = UnansweredClaims()
    unanswered.note(stale.lease_token)
    unanswered.give_back()
    unsent.give_back([stale])
    request.refresh_from_db()
    assert (request.lease_token, request.attempt_count) == (current.lease_token, 2)


def test_a_claim_that_was_answered_is_not_given_back(make_subscription, make_request):
    make_request(make_subscription())
    unanswered = UnansweredClaims()
    (claimed,) = claims.claim(10, unanswered=unanswered).requests
    unanswered.give_back()
    assert WebhookRequest.objects.get().lease_token == claimed.lease_token


def test_a_claim_that_is_committed_late_is_asked_for_again(make_subscription, make_request):
    make_request(make_subscription())
    unanswered = UnansweredClaims()
    token = claims.claim(10).requests[0].lease_token
    WebhookRequest.objects.update(lease_token=new_id())  # as if it were not committed yet
    unanswered.note(token)
    unanswered.give_back()
    WebhookRequest.objects.update(lease_token=token)
    unanswered.give_back()
    assert WebhookRequest.objects.get().lease_token is None


def test_a_worker_that_is_told_to_stop_gives_back_what_nobody_answered(
    make_subscription, make_request, fresh_worker, monkeypatch
):
    """It will not ask again before its next claim, which does not come."""
    make_request(make_subscription())
    fresh_worker._unanswered.note(claims.claim(10).requests[0].lease_token)
    monkeypatch.setattr(worker, "_is_told_to_stop", True)
    assert fresh_worker.drain() == 0
    after = WebhookRequest.objects.get()
    assert (after.lease_token, after.attempt_count, after.is_due) == (None, 0, True)


def test_it_finds_a_claim_in_the_index_of_leases():
    history.fill(20_000, size=10)
    parameters = {"lease_tokens": [new_id()], "ids": None}
    [[plan]] = sql.run(f"EXPLAIN (FORMAT JSON) {unsent.GIVE_BACK}", parameters)
    indexes = {node.get("Index Name") for node in nodes_of(plan[0]["Plan"])} - {None}
    assert indexes - {"subscriptions_pkey"} == {"requests_leased", "webhook_requests_pkey"}
