"""One customer cannot hurt another: receivers that hang, and the deliveries beside them."""

import threading
from contextlib import contextmanager

import pytest
from django.db import connection

from deliveries import queue, worker
from deliveries.dispatcher import Dispatcher
from tests.receiver import Answer, running_receiver

pytestmark = pytest.mark.django_db

HANGING = 5_000
HEALTHY = 50

# From received to answered, by the database's clock and the call's own time.
P95_SECONDS = """
SELECT percentile_cont(0.95) WITHIN GROUP (
    ORDER BY extract(epoch FROM a.attempted_at - r.received_at) + a.response_ms / 1000.0
)
FROM delivery_attempts AS a
JOIN webhook_requests AS r ON r.id = a.request_id
WHERE a.subscription_id = %s AND a.success
"""


@contextmanager
def hanging_receiver():
    """Run a receiver that answers nothing before the block ends; yields it."""
    hold = threading.Event()
    with running_receiver() as receiver:
        receiver.otherwise = Answer(hold=hold)
        try:
            yield receiver
        finally:
            hold.set()


@contextmanager
def delivering():
    """Have a dispatcher claim until `stop` is called or the block ends; yields it and `stop`."""
    stopping = threading.Event()
    dispatcher = Dispatcher(
        work_waiting=queue.take_wake_ups, should_stop=stopping.is_set, keep_alive=worker.keep_alive
    )
    yield dispatcher, stopping.set
    dispatcher.close()


def store(subscription, count):
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO webhook_requests (id, subscription_id, event_type, payload, tenant)"
            " SELECT gen_random_uuid(), %s, 'a', '{}', %s FROM generate_series(1, %s)",
            [subscription.id, subscription.tenant, count],
        )


def deliver_until(dispatcher, receiver, count, then):
    """Deliver until `receiver` has had so many calls; then do what has to be done for the loop to end."""

    def watch():
        try:
            receiver.wait_for(count)
        finally:
            then()

    watching = threading.Thread(target=watch)
    watching.start()
    dispatcher.drain()
    watching.join()


def test_fifty_healthy_deliveries_beside_five_thousand_that_hang_take_less_than_a_second(
    make_subscription, receiver
):
    """5,000 due requests for a receiver that hangs, and 50 for a healthy one: its p95 stays under 1 s."""
    healthy = make_subscription(receiver.url)
    with hanging_receiver() as hanging, delivering() as (dispatcher, stop):
        store(make_subscription(hanging.url), HANGING)
        store(healthy, HEALTHY)

        def end():
            stop()
            hanging.otherwise.hold.set()

        deliver_until(dispatcher, receiver, HEALTHY, end)
        assert len(hanging.arrivals) == 32  # as many as it may have in flight
    with connection.cursor() as cursor:
        assert cursor.execute(P95_SECONDS, [healthy.id]).fetchone()[0] < 1


def test_a_tenant_whose_receivers_hang_leaves_slots_to_the_others(make_subscription, receiver, settings):
    """However many subscriptions it has; without the bound its calls would be all that is in flight."""
    settings.WORKER_CONCURRENCY = 8
    with hanging_receiver() as hanging, delivering() as (dispatcher, stop):
        for _ in range(10):
            store(make_subscription(hanging.url, tenant="greedy"), 4)
        store(make_subscription(receiver.url, tenant="other"), 1)

        def end():
            stop()
            hanging.otherwise.hold.set()

        deliver_until(dispatcher, receiver, 1, end)
        assert len(hanging.arrivals) <= 4
