"""Claims, leases and settling, against PostgreSQL."""

import uuid
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from deliveries import claims, settlements
from deliveries.models import DeliveryAttempt, Event, WebhookRequest
from deliveries.outcome import ErrorClass, Outcome
from deliveries.retry import Decision

pytestmark = pytest.mark.django_db

SUCCESS = Outcome(error=None, status_code=200, response_ms=5, response_body=b"ok")
FAILURE = Outcome(error=ErrorClass.HTTP_5XX, status_code=500, response_ms=5)


def settlement(request, outcome=SUCCESS, delay=None):
    decision = Decision(delay_seconds=delay)
    return settlements.Settlement(
        request=request, attempted_at=request.claimed_at, outcome=outcome, decision=decision
    )


def claimed_ids(limit=100, after=None):
    return [request.id for request in claims.claim(limit, after=after).requests]


def log_of(request):
    attempts = DeliveryAttempt.objects.filter(request=request).order_by("attempt_number")
    return list(attempts.values_list("attempt_number", "trigger", "success", "status_code", "error"))


def test_it_returns_everything_that_sending_needs(make_subscription, make_request):
    subscription = make_subscription("http://127.0.0.1:9/hook", timeout_seconds=7, retry_schedule=[3, 4])
    request = make_request(subscription, b'{"a": 1.0}', event_type="invoice.paid")
    (claimed,) = claims.claim(10).requests
    assert claimed.id == request.id
    assert claimed.payload == b'{"a": 1.0}'
    assert claimed.event_type == "invoice.paid"
    assert (claimed.attempt_number, claimed.trigger, claimed.failure_count) == (1, "initial", 0)
    assert claimed.target.url == "http://127.0.0.1:9/hook"
    assert claimed.target.timeout_seconds == 7
    assert claimed.target.retry_schedule == [3, 4]
    assert claimed.target.signing_keys == subscription.signing_keys


def test_it_sends_the_payload_of_the_event_when_the_request_shares_one(make_subscription):
    event = Event.objects.create(event_type="invoice.paid", payload=b'{"shared": true}')
    subscription = make_subscription()
    WebhookRequest.objects.create(subscription=subscription, event=event, event_type="invoice.paid")
    (claimed,) = claims.claim(10).requests
    assert claimed.payload == b'{"shared": true}'


def test_it_leases_for_the_call_limit_and_a_margin(make_subscription, make_request, settings, clock):
    settings.LEASE_MARGIN_SECONDS = 5
    make_request(make_subscription(timeout_seconds=7))
    (claimed,) = claims.claim(10).requests
    request = WebhookRequest.objects.get()
    assert request.lease_token == claimed.lease_token
    assert request.next_attempt_at - claimed.claimed_at == timedelta(seconds=12)
    assert claimed_ids() == []


def test_it_takes_only_what_is_due(make_subscription, make_request):
    subscription = make_subscription()
    make_request(subscription, next_attempt_at=Now() + timedelta(minutes=2))
    due = make_request(subscription)
    assert claimed_ids() == [due.id]


@pytest.mark.parametrize("status", ["paused", "disabled"])
def test_it_takes_nothing_of_a_subscription_that_is_not_active(make_subscription, make_request, status):
    make_request(make_subscription(status=status))
    assert claimed_ids() == []


def test_it_takes_the_longest_due_of_a_subscription_first(make_subscription, make_request):
    subscription = make_subscription(max_in_flight=2)
    requests = [make_request(subscription, next_attempt_at=Now() - timedelta(seconds=age)) for age in (1, 3, 2)]
    assert set(claimed_ids()) == {requests[1].id, requests[2].id}


def test_it_never_takes_more_than_max_in_flight(make_subscription, make_request):
    subscription = make_subscription(max_in_flight=3)
    for _ in range(5):
        make_request(subscription)
    first = claims.claim(100).requests
    assert len(first) == 3
    assert claimed_ids() == []
    settlements.settle([settlement(first[0])])
    assert len(claimed_ids()) == 1


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


def test_it_looks_at_so_many_subscriptions_and_the_next_claim_goes_on_there(
    make_subscription, make_request, monkeypatch
):
    monkeypatch.setattr(claims, "WALK_LENGTH", 2)
    requests = [make_request(make_subscription()) for _ in range(5)]
    ids = [request.id for request in requests]
    first = claims.claim(100)
    assert sorted(request.id for request in first.requests) == ids[: 2 * claims.MOST_WALKS]
    second = claims.claim(100, after=first.stopped_after, until=first.until)
    assert [request.id for request in second.requests] == ids[2 * claims.MOST_WALKS :]
    assert (second.stopped_after, second.until) == (None, None)


@pytest.mark.parametrize("begin", range(5))
@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_round_visits_each_subscription_once_wherever_it_begins(
    make_subscription, make_request, monkeypatch, begin, length
):
    monkeypatch.setattr(claims, "WALK_LENGTH", length)
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


@pytest.mark.parametrize(
    ("outcome", "delay", "trigger"),
    [(SUCCESS, None, "initial"), (FAILURE, None, "initial"), (FAILURE, 60, "retry")],
)
def test_it_says_retry_only_of_a_request_that_is_tried_again(
    make_subscription, make_request, outcome, delay, trigger
):
    request = make_request(make_subscription())
    (claimed,) = claims.claim(10).requests
    settlements.settle([settlement(claimed, outcome, delay)])
    request.refresh_from_db()
    assert request.trigger == trigger


def test_it_settles_a_success_as_delivered(make_subscription, make_request):
    request = make_request(make_subscription())
    (claimed,) = claims.claim(10).requests
    settlements.settle([settlement(claimed)])
    request.refresh_from_db()
    assert (request.status, request.attempt_count, request.error) == ("delivered", 1, "")
    assert (request.lease_token, request.next_attempt_at) == (None, None)
    assert request.settled_at is not None
    assert log_of(request) == [(1, "initial", True, 200, "")]


def test_it_settles_a_failure_as_due_after_its_delay(make_subscription, make_request, clock):
    request = make_request(make_subscription())
    (claimed,) = claims.claim(10).requests
    settlements.settle([settlement(claimed, FAILURE, delay=120.0)])
    request.refresh_from_db()
    assert (request.status, request.failure_count, request.error) == ("pending", 1, "http_5xx")
    assert request.next_attempt_at - claimed.claimed_at == timedelta(seconds=120)
    assert claimed_ids() == []
    clock.move(timedelta(seconds=120))
    (again,) = claims.claim(10).requests
    assert (again.attempt_number, again.trigger, again.failure_count) == (2, "retry", 1)


def test_it_settles_a_failure_without_delay_as_failed(make_subscription, make_request):
    request = make_request(make_subscription())
    (claimed,) = claims.claim(10).requests
    settlements.settle([settlement(claimed, FAILURE)])
    request.refresh_from_db()
    assert (request.status, request.error, request.next_attempt_at) == ("failed", "http_5xx", None)


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


def test_what_was_in_flight_at_a_cancel_is_logged_as_it_was_though_it_comes_after_a_replay(
    make_subscription, make_request
):
    request = make_request(make_subscription())
    (late,) = claims.claim(10).requests
    WebhookRequest.objects.filter(id=request.id).cancel()
    WebhookRequest.objects.replay()
    claims.claim(10)
    settlements.settle([settlement(late, FAILURE)])
    assert log_of(request) == [(1, "initial", False, 500, "http_5xx")]
    request.refresh_from_db()
    assert (request.status, request.failure_count) == ("pending", 0)


def test_a_late_failure_changes_nothing_but_leaves_its_attempt(make_subscription, make_request, make_due):
    request = make_request(make_subscription())
    (late,) = claims.claim(10).requests
    make_due(request)
    (current,) = claims.claim(10).requests
    settlements.settle([settlement(late, FAILURE)])
    request.refresh_from_db()
    assert (request.status, request.lease_token, request.failure_count) == ("pending", current.lease_token, 0)
    settlements.settle([settlement(current)])
    request.refresh_from_db()
    assert request.status == "delivered"
    assert log_of(request) == [(1, "initial", False, 500, "http_5xx"), (2, "retry", True, 200, "")]


def test_a_late_success_delivers_a_request_that_waits(make_subscription, make_request, make_due):
    request = make_request(make_subscription())
    (late,) = claims.claim(10).requests
    make_due(request)
    (current,) = claims.claim(10).requests
    settlements.settle([settlement(current, FAILURE, delay=120.0)])
    settlements.settle([settlement(late)])
    request.refresh_from_db()
    assert request.status == "delivered"
    assert log_of(request) == [(1, "initial", True, 200, ""), (2, "retry", False, 500, "http_5xx")]


def test_a_late_word_does_not_overturn_a_settled_request(make_subscription, make_request, make_due):
    request = make_request(make_subscription())
    (late,) = claims.claim(10).requests
    make_due(request)
    (current,) = claims.claim(10).requests
    settlements.settle([settlement(current)])
    settlements.settle([settlement(late, FAILURE, delay=120.0)])
    request.refresh_from_db()
    assert request.status == "delivered"


def test_a_settled_attempt_is_not_overwritten_by_settling_it_again(make_subscription, make_request):
    request = make_request(make_subscription())
    (claimed,) = claims.claim(10).requests
    settlements.settle([settlement(claimed)])
    settlements.settle([settlement(claimed, FAILURE)])
    assert log_of(request) == [(1, "initial", True, 200, "")]


def test_settling_passes_over_a_request_that_was_purged_meanwhile(make_subscription, make_request):
    subscription = make_subscription()
    gone, kept = make_request(subscription), make_request(subscription)
    requests = claims.claim(10).requests
    WebhookRequest.objects.filter(id=gone.id).delete()
    settlements.settle([settlement(request) for request in requests])
    kept.refresh_from_db()
    assert kept.status == "delivered"
    assert log_of(gone) == []


def test_it_keeps_what_the_receiver_answered_and_how_long_each_phase_took(make_subscription, make_request):
    make_request(make_subscription())
    (claimed,) = claims.claim(10).requests
    outcome = Outcome(
        error=ErrorClass.HTTP_4XX,
        status_code=404,
        response_ms=40,
        dns_ms=1,
        connect_ms=2,
        tls_ms=None,
        first_byte_ms=30,
        response_headers="HTTP/1.1 404 Not Found\r\nX-Odd: \xff, {1}\"'\\",
        response_body=bytes(range(256)),
    )
    settlements.settle([settlement(claimed, outcome, delay=1.0)])
    attempt = DeliveryAttempt.objects.get()
    kept = (attempt.response_ms, attempt.dns_ms, attempt.connect_ms, attempt.tls_ms, attempt.first_byte_ms)
    assert kept == (40, 1, 2, None, 30)
    assert attempt.response_headers == outcome.response_headers
    assert bytes(attempt.response_body) == outcome.response_body


def test_a_replay_starts_a_new_run_and_keeps_the_old_attempts(make_subscription, make_request):
    request = make_request(make_subscription())
    (claimed,) = claims.claim(10).requests
    settlements.settle([settlement(claimed, FAILURE)])
    assert WebhookRequest.objects.replay() == 1
    assert WebhookRequest.objects.replay() == 0
    (again,) = claims.claim(10).requests
    assert (again.attempt_number, again.trigger, again.failure_count) == (2, "replay", 0)
    settlements.settle([settlement(again, FAILURE, delay=1.0)])
    request.refresh_from_db()
    assert request.trigger == "replay"
    assert [row[:2] for row in log_of(request)] == [(1, "initial"), (2, "replay")]


def test_an_empty_table_yields_nothing():
    nothing = claims.Claim(
        requests=[], lost_attempts=0, stopped_after=None, until=None, has_more=False, rate_held_seconds=None
    )
    assert claims.claim(10) == nothing
    assert claims.claim(10, after=uuid.uuid4()) == nothing


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


def test_suspects_do_not_hold_up_the_rest_of_their_subscription(make_subscription, make_request):
    subscription = make_subscription(max_in_flight=4)
    for request in [make_request(subscription) for _ in range(4)]:
        WebhookRequest.objects.filter(id=request.id).update(lost_count=2)
    others = [make_request(subscription) for _ in range(4)]
    ids = claimed_ids()
    assert set(ids) & {request.id for request in others}
    assert len(ids) == 4
    assert sum(request.lost_count == 2 for request in WebhookRequest.objects.filter(id__in=ids)) <= 1


def test_it_takes_nothing_of_a_subscription_that_was_disabled_before_its_lock_was_had(
    make_subscription, make_request
):
    subscription = make_subscription()
    make_request(subscription)
    room = claims.Room(requests=10, suspects=1, size=claims.MAX_BYTES)
    walk = claims._walk(uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), 10, satisfied=[])
    type(subscription).objects.filter(id=subscription.id).disable()
    assert claims._take(walk, room, {subscription.id: 10}, uuid.uuid4()).requests == []


def test_it_takes_no_more_payload_than_it_may_hold(make_subscription, make_request):
    subscription = make_subscription()
    for _ in range(10):
        make_request(subscription, b"x" * 1000)
    event = Event.objects.create(event_type="invoice.paid", payload=b"x" * 1000)
    for _ in range(10):
        WebhookRequest.objects.create(subscription=subscription, event=event, event_type="invoice.paid")
    assert len(claims.claim(100, max_bytes=3500).requests) == 4
    assert len(claims.claim(100, max_bytes=1).requests) == 1
    assert len(claims.claim(100).requests) == 15
