"""A worker whose Redis hangs: it takes what it is sent, and says nothing."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings
from rq.serializers import JSONSerializer

from deliveries import queue, worker
from deliveries.models import WebhookRequest
from tests.faults.loop import LoopThread
from tests.faults.proxy import Link, Mode, Proxy
from tests.receiver import Answer

# In no transaction of the test: PostgreSQL would end one that waits for Redis for three seconds (walks.py).
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("fresh_worker")]


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy that leads to Redis."""
    thread = LoopThread()
    reached = _reached()
    made = Proxy(thread, Path(reached["path"]) if "path" in reached else (reached["host"], reached["port"]))
    yield made
    made.heal()
    made.close()
    thread.stop()


def _reached() -> dict:
    return redis.ConnectionPool.from_url(settings.REDIS_URL).connection_kwargs


@pytest.fixture
def client(proxy: Proxy) -> Iterator[redis.Redis]:
    known = {name: value for name, value in _reached().items() if name in ("db", "username", "password")}
    with redis.Redis(host="127.0.0.1", port=proxy.port, **known, socket_timeout=None, retry=None) as client:
        yield client


@pytest.fixture
def make_worker(client: redis.Redis) -> Callable[[], worker.Worker]:
    def make() -> worker.Worker:
        of_deliveries = queue.Queue(queue.DELIVERIES, connection=client, serializer=JSONSerializer)
        return worker.Worker(
            [of_deliveries], connection=client, job_class=worker.TakenJob, serializer=JSONSerializer
        )

    return make


@pytest.fixture
def links(make_subscription, make_request, receiver, proxy) -> Iterator[set[Link]]:
    """Have a job done in the middle of which Redis hangs; the connections to it that there are then."""
    hold = threading.Event()
    receiver.script = [Answer(hold=hold)]
    make_request(make_subscription(receiver.url))
    links = set()

    def hang() -> None:
        receiver.wait_for(1)
        proxy.set(Mode.BLACKHOLE)
        links.update(proxy.links)
        hold.set()

    queue.push_wake_up()
    hanging = threading.Thread(target=hang)
    hanging.start()
    yield links
    hanging.join()


def test_a_worker_waits_once_for_a_redis_that_hangs_in_the_middle_of_a_job(make_worker, proxy, links):
    """RQ asks several times in the bookkeeping of a job, and once more to say goodbye."""
    with pytest.raises(redis.TimeoutError):
        make_worker().work(burst=True, logging_level="WARNING")
    assert WebhookRequest.objects.get().status == "delivered"
    # A connection that was not answered in time is closed: each further wait would be one of another.
    assert proxy.links == links


@pytest.mark.usefixtures("links")
def test_a_worker_that_gave_up_in_the_middle_of_a_job_is_at_none_any_more(make_worker):
    """Else the process would set the alarm by which RQ ends a job, and end by it."""
    with pytest.raises(redis.TimeoutError):
        worker.run_worker(queue.DELIVERIES, make_worker=make_worker, burst=True)
    assert WebhookRequest.objects.get().status == "delivered"
    assert worker.Worker.current is None
