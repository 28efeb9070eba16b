"""Claim, settle, expire, replay, cancel, pause and purge in any order, against PostgreSQL."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.db.models.functions import Now
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from deliveries import claims, operations, settlements
from deliveries.models import DeliveryAttempt, WebhookRequest
from deliveries.unsent import UnansweredClaims
from subscriptions.models import Subscription
from tests.deliveries.claiming import FAILURE, SUCCESS, settlement

CAP = 2


class Engine(RuleBasedStateMachine):
    """Two subscriptions, one of them ordered; whatever happens, nothing accepted is lost."""

    def __init__(self):
        super().__init__()
        self.transaction = transaction.atomic()
        self.transaction.__enter__()
        self.subscriptions = [self.subscribe(ordered=False), self.subscribe(ordered=True)]
        self.accepted = set()
        self.purged = set()
        self.claimed = []
        self.unanswered = UnansweredClaims()
        self.settled = {}

    def teardown(self):
        transaction.set_rollback(True)
        self.transaction.__exit__(None, None, None)

    def subscribe(self, *, ordered):
        subscription = Subscription(target_url="http://127.0.0.1:9/", max_in_flight=CAP, ordered=ordered)
        subscription.set_secret("of the states")
        subscription.save()
        return subscription

    @rule(which=st.integers(0, 1))
    def accept(self, which):
        request = WebhookRequest.objects.create(
            subscription=self.subscriptions[which], event_type="a", payload=b"{}"
        )
        self.accepted.add(request.id)

    @rule(limit=st.integers(1, 5))
    def claim(self, limit):
        self.claimed += claims.claim(limit).requests

    @rule(limit=st.integers(1, 5))
    def claim_without_an_answer(self, limit):
        for request in claims.claim(limit).requests:
            self.unanswered.note(request.lease_token)

    @rule()
    def give_back_what_was_not_answered(self):
        self.unanswered.give_back()

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), delivered=st.booleans(), delay=st.sampled_from([None, 0.0, 60.0]))
    def settle(self, data, delivered, delay):
        """Settle any claim ever made, once or twice, however stale."""
        request = data.draw(st.sampled_from(self.claimed))
        settlements.settle([settlement(request, SUCCESS) if delivered else settlement(request, FAILURE, delay)])

    @rule()
    def time_passes(self):
        """Every lease runs out, and every retry is due."""
        pending = WebhookRequest.objects.filter(status="pending", next_attempt_at__gt=Now())
        pending.update(next_attempt_at=Now())
        Subscription.objects.update(blocked_until=None, circuit_opened_at=None, circuit_probe_at=None)

    @rule()
    def replay(self):
        WebhookRequest.objects.replay()
        self.settled.clear()

    @precondition(lambda self: self.accepted - self.purged)
    @rule(data=st.data())
    def cancel(self, data):
        request_id = data.draw(st.sampled_from(sorted(self.accepted - self.purged)))
        WebhookRequest.objects.filter(id=request_id).cancel()

    @rule(which=st.integers(0, 1))
    def pause(self, which):
        Subscription.objects.filter(id=self.subscriptions[which].id).pause()

    @rule()
    def resume(self):
        Subscription.objects.all().resume()
        Subscription.objects.all().enable()

    @rule()
    def purge(self):
        settled = set(WebhookRequest.objects.settled().values_list("id", flat=True))
        operations.purge(older_than_days=0)
        self.purged |= settled
        for request_id in settled:
            self.settled.pop(request_id, None)

    @invariant()
    def no_request_is_lost(self):
        assert set(WebhookRequest.objects.values_list("id", flat=True)) == self.accepted - self.purged

    @invariant()
    def no_settled_request_is_settled_again(self):
        now = dict(WebhookRequest.objects.settled().values_list("id", "status"))
        assert self.settled.items() <= now.items()
        self.settled = now

    @invariant()
    def attempt_numbers_have_no_gaps(self):
        for request in WebhookRequest.objects.prefetch_related("attempts"):
            numbers = {attempt.attempt_number for attempt in request.attempts.all()}
            missing = set(range(1, request.attempt_count + 1)) - numbers
            assert numbers <= set(range(1, request.attempt_count + 1))
            # What is in flight has no row yet; a canceled call may still write its own.
            assert missing <= {request.attempt_count}

    @invariant()
    def no_attempt_is_without_its_request(self):
        assert not DeliveryAttempt.objects.exclude(request_id__in=self.accepted - self.purged).exists()

    @invariant()
    def caps_hold(self):
        for subscription, cap in zip(self.subscriptions, (CAP, 1), strict=True):
            in_flight = WebhookRequest.objects.filter(
                subscription=subscription, lease_token__isnull=False, next_attempt_at__gt=Now()
            )
            assert in_flight.count() <= cap


@pytest.mark.django_db
@pytest.mark.timeout(300)
def test_no_order_of_events_loses_a_request_or_settles_one_twice():
    run_state_machine_as_test(
        Engine,
        settings=settings(
            max_examples=50,
            stateful_step_count=30,
            deadline=timedelta(seconds=20),
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
