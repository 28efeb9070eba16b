"""manage.py rqworker: one worker for one queue."""

import pytest
from django.core.management import CommandError, call_command

from deliveries import queue
from tests.service import free_port

pytestmark = pytest.mark.usefixtures("fresh_worker")


@pytest.mark.django_db
def test_it_works_off_its_queue_and_ends_in_a_burst(make_subscription, make_request, receiver):
    request = make_request(make_subscription(receiver.url))
    queue.push_wake_up()
    call_command("rqworker", queue.DELIVERIES, "--burst")
    request.refresh_from_db()
    assert request.status == "delivered"
    assert [arrival.body for arrival in receiver.arrivals] == [b'{"n": 1}']


@pytest.mark.django_db
def test_it_leaves_the_other_queue_alone(make_subscription, make_request, receiver):
    make_request(make_subscription(receiver.url))
    queue.push_wake_up()
    call_command("rqworker", queue.MAINTENANCE, "--burst")
    assert receiver.arrivals == []
    assert queue.take_wake_ups()


@pytest.mark.parametrize("arguments", [[], ["default"], [queue.DELIVERIES, queue.MAINTENANCE]])
def test_it_wants_exactly_one_of_the_two_queues(arguments):
    with pytest.raises(CommandError):
        call_command("rqworker", *arguments, "--burst")


def test_a_burst_without_redis_is_a_failure(settings):
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}"
    with pytest.raises(CommandError) as failed:
        call_command("rqworker", queue.DELIVERIES, "--burst")
    assert str(failed.value).startswith("Redis does not work: ")
