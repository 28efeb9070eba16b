"""Whatever somebody has written to Redis who may: workers deliver, the clock goes on, and nothing else is run."""

import gc
import json
import logging
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.management import call_command
from django.db import connection
from rq.exceptions import NoSuchJobError
from rq.serializers import JSONSerializer

from deliveries import queue, scheduler, worker
from tests.deliveries.test_queue import client as client
from tests.deliveries.test_queue import clock as clock
from tests.deliveries.test_queue import waiting
from tests.receiver import Answer

pytestmark = pytest.mark.usefixtures("fresh_worker", "patient_redis")


@pytest.mark.parametrize("name", ["os.mkdir", [], {}, None, 1])
def test_a_job_that_names_no_task_is_strange(client, name):
    data = json.dumps([name, None, [], {}])
    client.hset("rq:job:strange", mapping={"data": data, "created_at": "2026-11-24T00:00:00Z"})
    job = queue.Job.fetch("strange", connection=client, serializer=JSONSerializer)
    with pytest.raises(queue.StrangeJob):
        _ = job.func


def strange_job(client, **fields: str) -> None:
    """Put a job into Redis as somebody would who can write to it and no more."""
    job = {
        "data": '["os.mkdir", null, ["{}"], {{}}]'.format(fields.pop("folder")),
        "status": "queued",
        "origin": "deliveries",
        "created_at": "2026-11-24T00:00:00Z",
        "timeout": "60",
        "result_ttl": "0",
    }
    client.hset("rq:job:strange", mapping=job | fields)
    client.sadd("rq:queues", "rq:queue:deliveries")
    client.rpush("rq:queue:deliveries", "strange")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "data",
    [
        None,
        '["deliveries.tasks.os.mkdir", null, ["FOLDER"], {}]',
        '["mkdir", "os", ["FOLDER"], {}]',
        '["format", "x", ["FOLDER"], {}]',
        '["deliveries.tasks.deliver_due", null, ["FOLDER"], {}]',
        '["os.nothing", null, [], {}]',
        '[["os.mkdir"], null, ["FOLDER"], {}]',
        "[]",
        "{}",
        "not JSON",
    ],
)
def test_who_writes_to_redis_runs_nothing_but_tasks(
    client, tmp_path, data, make_subscription, make_request, receiver
):
    folder = tmp_path / "made"
    strange_job(
        client, folder=str(folder), **({} if data is None else {"data": data.replace("FOLDER", str(folder))})
    )
    make_request(make_subscription(receiver.url))
    call_command("rqworker", "deliveries", "--burst")
    assert not folder.exists()
    queue.push_wake_up()
    call_command("rqworker", "deliveries", "--burst")
    assert len(receiver.arrivals) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("outcome", ["success", "failure"])
def test_who_writes_to_redis_has_no_callback_run_and_no_url_called(client, tmp_path, receiver, outcome):
    task = "deliver_due" if outcome == "success" else "nothing"
    webhook = [{"url": receiver.url, "job_status": status} for status in ("finished", "failed")]
    strange_job(
        client,
        folder=str(tmp_path),
        data=f'["deliveries.tasks.{task}", null, [], {{}}]',
        success_callback_name="tests.deliveries.test_hostile_redis.never",
        failure_callback_name="tests.deliveries.test_hostile_redis.never",
        stopped_callback_name="tests.deliveries.test_hostile_redis.never",
        webhooks=json.dumps(webhook),
    )
    call_command("rqworker", "deliveries", "--burst")
    assert called == []
    assert receiver.arrivals == []


@pytest.mark.django_db
def test_who_writes_to_redis_does_not_keep_workers_from_delivering(
    client, make_subscription, make_request, receiver
):
    client.set("rq:suspended", 1)
    make_request(make_subscription(receiver.url))
    queue.push_wake_up()
    call_command("rqworker", "deliveries", "--burst")
    assert len(receiver.arrivals) == 1


@pytest.mark.django_db
def test_who_writes_to_redis_can_tell_a_worker_nothing(client, make_subscription, make_request, receiver):
    looked = threading.Event()
    receiver.otherwise = Answer(hold=looked)

    def look_at_its_channels():
        try:
            receiver.wait_for(1)
            return client.pubsub_channels("rq:pubsub:*")
        finally:
            looked.set()

    make_request(make_subscription(receiver.url))
    queue.push_wake_up()
    with ThreadPoolExecutor(1) as pool:
        channels = pool.submit(look_at_its_channels)
        call_command("rqworker", "deliveries", "--burst")
    assert channels.result() == []


@pytest.mark.django_db
@pytest.mark.parametrize("origin", ["deliveries", "maintenance"])
def test_who_writes_to_redis_has_no_worker_do_the_work_of_the_other(
    client, tmp_path, origin, make_subscription, make_request, receiver
):
    make_request(make_subscription(receiver.url))
    job = f'["{queue.DELIVER_DUE}", null, [], {{}}]'
    strange_job(client, folder=str(tmp_path), data=job, origin=origin)
    client.rename("rq:queue:deliveries", "rq:queue:maintenance")
    call_command("rqworker", "maintenance", "--burst")
    assert not client.exists("rq:queue:maintenance")
    assert receiver.arrivals == []


@pytest.mark.django_db
def test_who_writes_to_redis_has_no_job_tried_over_and_over(client, tmp_path):
    strange_job(client, folder=str(tmp_path), retries_left="3", repeats_left="3", repeat_intervals="[0]")
    # A worker of the other queue may empty it, with a look of its own.
    client.rename("rq:queue:deliveries", "rq:queue:maintenance")
    with client.monitor() as monitor:
        call_command("rqworker", "maintenance", "--burst")
        client.echo("the end")
        commands = list(iter(lambda: monitor.next_command()["command"], "ECHO the end"))
    assert len([command for command in commands if command == "HGETALL rq:job:strange"]) == 1
    assert not client.exists("rq:queue:maintenance", "rq:scheduled:maintenance")


@pytest.mark.django_db
@pytest.mark.parametrize("spoil", ["a job", "the queue"])
def test_nothing_stays_in_memory_of_jobs_that_fail_and_workers_that_give_up(client, tmp_path, spoil):
    def kept():
        # By type: to ask a weak proxy of somebody's what it is an instance of may fail.
        return [each for each in gc.get_objects() if issubclass(type(each), queue.Job | worker.Worker)]

    gc.collect()
    before = kept()
    gc.disable()  # what Python does by itself, seldom in a worker
    logging.disable()  # pytest keeps what is logged, with the stack and all that is in it
    try:
        if spoil == "a job":
            strange_job(client, folder=str(tmp_path))
            client.rename("rq:queue:deliveries", "rq:queue:maintenance")
        else:
            client.rpush("rq:queue:maintenance", b"\xff no id")
        call_command("rqworker", "maintenance", "--burst")
        assert [each for each in kept() if each not in before] == []
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()


@pytest.mark.parametrize("timeout", ["1", "-1", ""])
def test_who_writes_to_redis_does_not_shorten_the_time_of_a_job(client, tmp_path, timeout):
    strange_job(client, folder=str(tmp_path), timeout=timeout)
    assert queue.Job.fetch("strange", connection=client).timeout == queue.JOB_TIMEOUT_SECONDS


called: list[tuple[object, ...]] = []


def never(*args: object) -> None:
    called.append(args)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"meta": '{"queue_class_name": "tests.deliveries.nowhere.Queue"}'},
        {"timeout": "no number"},
        {"created_at": "no date"},
        {"status": "no status"},
        {"meta": '{"interval": "no number"}'},
        {"meta": '{"cron_string": "no cron"}'},
        {"dependency_ids": "not JSON"},
    ],
)
def test_the_clock_queues_its_own_jobs_alone(client, clock, tmp_path, fields):
    strange_job(client, folder=str(tmp_path), **fields)
    client.delete("rq:queue:deliveries")
    client.zadd("rq:scheduler:scheduled_jobs", {"strange": 0, b"\xff no id": 0})
    clock.enqueue_jobs()
    assert client.lrange("rq:queue:deliveries", 0, -1) == [b"tick"]


SPOILT = [
    ("hset", "rq:job:tick", "timeout", "no number"),
    ("hset", "rq:job:tick", "data", '["deliveries.tasks.purge", null, [], {}]'),
    ("hset", "rq:job:tick", "dependency_ids", '["another"]'),
    ("hset", "rq:job:tick", "origin", "maintenance"),
    ("set", "rq:job:tick", "no job"),
    ("set", "rq:job:tick:dependents", "no set"),
    ("set", "rq:executions:tick", "no sorted set"),
    ("set", "rq:results:tick", "no stream"),
    ("zadd", "rq:scheduler:scheduled_jobs", {"tick": "-inf"}),
    ("zadd", "rq:scheduler:scheduled_jobs", {"tick": "inf"}),
]


@pytest.mark.django_db
@pytest.mark.parametrize("command", SPOILT, ids=str)
def test_the_clock_goes_on_whatever_is_done_to_its_own_jobs(client, clock, command):
    clock.register_periodic_jobs()
    name, *arguments = command
    getattr(client, name)(*arguments)
    client.zadd("rq:scheduler:scheduled_jobs", {"tick": 0}, nx=True)
    before = time.time()
    clock.enqueue_jobs()
    assert client.lrange("rq:queue:deliveries", 0, -1) == [b"tick"]
    job = queue.Job.fetch("tick", connection=client)
    assert (job.func_name, job.timeout) == (queue.DELIVER_DUE, queue.JOB_TIMEOUT_SECONDS)
    assert job.meta == {"interval": 1}
    # The clock has whole seconds.
    assert before < client.zscore("rq:scheduler:scheduled_jobs", "tick") <= time.time() + 1


@pytest.mark.parametrize("seconds", [None, 3600])
def test_a_lock_that_no_scheduler_holds_does_not_stop_the_clock(client, clock, seconds):
    client.set("rq:scheduler_lock", "of nobody", ex=seconds)
    assert clock.acquire_lock()


def test_a_lock_that_another_scheduler_holds_is_left_to_it(client, clock):
    assert clock.acquire_lock()
    assert not scheduler.Scheduler(connection=client, interval=1, queue_name=queue.DELIVERIES).acquire_lock()


@pytest.mark.django_db
@pytest.mark.parametrize("key", queue.KINDS)
def test_what_has_a_wrong_type_in_redis_is_dropped(client, clock, key, make_subscription, make_request, receiver):
    client.delete(key)
    client.xadd(key, {"no": "wake-up"})
    queue.drop_misshapen()
    assert not client.exists(key)
    clock.enqueue_jobs()
    make_request(make_subscription(receiver.url))
    for name in (queue.DELIVERIES, queue.MAINTENANCE):
        call_command("rqworker", name, "--burst")
    assert len(receiver.arrivals) == 1


def test_what_has_the_right_type_in_redis_is_kept(client, clock):
    clock.register_periodic_jobs()
    queue.push_wake_up()
    before = set(client.scan_iter())
    queue.drop_misshapen()
    assert set(client.scan_iter()) == before


@pytest.mark.django_db
def test_a_worker_looks_around_between_jobs_that_are_not_there(client, monkeypatch):
    monkeypatch.setattr(worker, "IDLE_LOOK_SECONDS", 0)
    looks = []

    def note(execute, statement, *rest):
        if 'FROM "operations"' in statement:
            looks.append(client.llen("rq:queue:maintenance"))
        return execute(statement, *rest)

    client.set("rq:job:no-hash", "no hash")
    client.rpush("rq:queue:maintenance", "not-there", "no id", "no-hash")
    with connection.execute_wrapper(note):
        call_command("rqworker", "maintenance", "--burst")
    assert {3, 2, 1, 0} <= set(looks)


@pytest.mark.django_db
def test_a_worker_works_whatever_else_is_said_to_be_one(client):
    client.sadd("rq:workers:deliveries", b"\xff", "no worker", "")
    queue.push_wake_up()
    call_command("rqworker", "deliveries", "--burst")
    assert waiting(client) == 0


@pytest.mark.django_db
def test_a_worker_reads_no_job_that_is_over(client, tmp_path):
    strange_job(client, folder=str(tmp_path), timeout="no number")
    client.delete("rq:queue:deliveries")
    client.rpush("rq:queue:deliveries:intermediate", "strange")
    for registry in ("wip", "failed", "finished"):
        client.zadd(f"rq:{registry}:deliveries", {"strange": 1, "another:one": 1, "running": time.time() + 60})
    with client.monitor() as monitor:
        call_command("rqworker", "deliveries", "--burst")
        client.echo("the end")
        commands = list(iter(lambda: monitor.next_command()["command"], "ECHO the end"))
    assert any("rq:wip:deliveries" in command for command in commands)
    assert [command for command in commands if "rq:job:" in command] == []
    for registry in ("wip", "failed", "finished"):
        assert client.zrange(f"rq:{registry}:deliveries", 0, -1) == [b"running"]
    assert not client.exists("rq:queue:deliveries:intermediate")


@pytest.mark.parametrize(
    "fields",
    [
        {"timeout": "no number"},
        {"status": "no status"},
        {"description": b"\xff"},
        {"dependency_ids": "[" * 10_000},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_job_that_cannot_be_read_is_none(client, tmp_path, fields):
    strange_job(client, folder=str(tmp_path), **fields)
    with pytest.raises(NoSuchJobError):
        queue.Job.fetch("strange", connection=client)


@pytest.mark.parametrize("field", ["data", "exc_info"])
@pytest.mark.parametrize("size", [100_000_000, 20_000_000, 20_001])  # packed, the second is just under the limit
def test_a_job_that_unpacks_to_a_great_deal_is_none(client, tmp_path, field, size):
    strange_job(client, folder=str(tmp_path), **{field: zlib.compress(bytes(size), 9)})
    with pytest.raises(NoSuchJobError):
        queue.Job.fetch("strange", connection=client)


def left_for_maintenance(client, tmp_path) -> None:
    """Leave a job to the worker that does not empty its queue, with a look of its own, before it takes one."""
    data = f'["{queue.RUN_OPERATIONS}", null, [], {{}}]'
    strange_job(client, folder=str(tmp_path), data=data, origin="maintenance")
    client.rename("rq:queue:deliveries", "rq:queue:maintenance")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "spoil",
    [
        "redis.call('hset', 'rq:job:strange', 'meta', string.rep('x', 60000000))",
        "for i = 1, 60000 do redis.call('hset', 'rq:job:strange', i, string.rep('x', 1000)) end",
        "redis.call('lpush', 'rq:queue:maintenance', string.rep('x', 60000000))",
        "redis.call('sadd', 'rq:job:strange:dependents', string.rep('x', 60000000))",
    ],
    ids=["a large field", "many fields", "a large id", "a large dependent"],
)
def test_a_worker_does_not_read_what_would_fill_its_memory(client, tmp_path, spoil):
    left_for_maintenance(client, tmp_path)
    client.eval(spoil, 0)
    logging.disable()  # pytest keeps what is logged, with the stack and all that is in it
    tracemalloc.start()
    try:
        for _ in range(2):
            call_command("rqworker", "maintenance", "--burst")
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        logging.disable(logging.NOTSET)
    assert most_bytes < 20_000_000
    assert not client.exists("rq:queue:maintenance")


@pytest.mark.django_db
def test_a_worker_works_beside_one_whose_name_would_fill_its_memory(client, tmp_path):
    left_for_maintenance(client, tmp_path)
    client.eval("redis.call('sadd', 'rq:workers:maintenance', string.rep('x', 2000000))", 0)
    call_command("rqworker", "maintenance", "--burst")
    assert not client.exists("rq:queue:maintenance")


@pytest.mark.django_db
def test_a_worker_does_not_fetch_jobs_that_wait_for_another(client, tmp_path):
    left_for_maintenance(client, tmp_path)
    client.sadd("rq:job:strange:dependents", "another")
    with client.monitor() as monitor:
        call_command("rqworker", "maintenance", "--burst")
        client.echo("the end")
        commands = list(iter(lambda: monitor.next_command()["command"], "ECHO the end"))
    assert any(command == "SMEMBERS rq:job:strange:dependents" for command in commands)
    assert not any("rq:job:another" in command for command in commands)
