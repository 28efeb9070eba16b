"""Wake workers: what is in Redis, and how it gets there.

Redis holds nothing but nudges. The queue `deliveries` is itself the flag that says "a
worker is already called": it is only pushed to when it is empty, and whoever takes a
wake-up from it claims afterwards, so a row committed before the push is always seen. A
wake-up that gets lost costs one tick of the clock, never a delivery.
"""

import logging
import threading
import time
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import redis
from django.conf import settings
from rq import Queue, serializers
from rq.exceptions import NoSuchJobError, TimeoutFormatError
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException as JobTimeoutException
from rq.utils import import_attribute

logger = logging.getLogger(__name__)

DELIVERIES = "deliveries"
MAINTENANCE = "maintenance"

DELIVER_DUE = "deliveries.tasks.deliver_due"
PURGE = "deliveries.tasks.purge"
CANCEL_ORPHANS = "deliveries.tasks.cancel_orphans"
RUN_OPERATIONS = "deliveries.tasks.run_operations"
WARN = "deliveries.tasks.warn"
# Run by the clock itself, and no job.
BEAT_SCHEDULER = "deliveries.tasks.beat_scheduler"

# Wake-ups within one process go to Redis together, at most once in this time.
COALESCE_SECONDS = 0.005

# A Redis that does not answer within this is left alone for a moment; nothing waits for it.
REDIS_TIMEOUT_SECONDS = 0.25
REDIS_AWAY_SECONDS = 1.0

WAKE_UP_TTL_SECONDS = 60
FAILURE_TTL_SECONDS = 600

# A drain lasts as long as there is something to do. The job's time limit therefore runs
# from the last sign of life, which the dispatcher gives now and then.
JOB_TIMEOUT_SECONDS = 300

# No job of ours is larger, nor is what RQ unpacks of one. That could be a thousand times as much: 20 MB for each
# job, of which Python keeps hundreds until it looks for garbage.
MOST_JOB_BYTES = 20_000


class StrangeJob(Exception):
    """A job in Redis that names a function which is no task."""


# All that a job may run, and in which queue: in the other it would keep a worker from its own work.
TASKS = {
    DELIVER_DUE: DELIVERIES,
    PURGE: MAINTENANCE,
    CANCEL_ORPHANS: MAINTENANCE,
    RUN_OPERATIONS: MAINTENANCE,
    WARN: MAINTENANCE,
}


class Job(RQJob):
    """An RQ job that names one of TASKS, in JSON.

    Whoever can write to Redis could run code here with a pickle, with the name of any
    function, or with the callbacks that RQ takes from a job; have RQ call any URL; and end
    deliveries in the middle with a short time limit, so that they count as lost.
    """

    @property
    def func(self) -> Callable[..., Any]:
        """The task; raise StrangeJob for any other function, and for a task of another queue than the job's."""
        # Of a job that anybody wrote it may be a list, which is no key.
        if not isinstance(self.func_name, str) or TASKS.get(self.func_name) != self.origin:
            raise StrangeJob(f"This job is none of the service's: {self.func_name!r}.")
        task: Callable[..., Any] = import_attribute(self.func_name)
        return task

    def restore(self, raw_data: Any) -> Any:
        return _restore_harmless(self, raw_data)

    @classmethod
    def create(cls, *args: Any, **kwargs: Any) -> RQJob:
        kwargs["serializer"] = JSONSerializer
        return super().create(*args, **kwargs)

    @classmethod
    def fetch(cls, *args: Any, **kwargs: Any) -> RQJob:
        kwargs["serializer"] = JSONSerializer
        return super().fetch(*args, **kwargs)


_restore = RQJob.restore

# What RQ raises over a job that it cannot read: anybody may have written it.
STUMBLES = (AssertionError, RecursionError, TimeoutFormatError, ValueError)


def _unpacks_to_more(value: bytes) -> bool:
    """Return whether this is packed, and more than MOST_JOB_BYTES."""
    unpacker = zlib.decompressobj()
    try:
        return len(unpacker.decompress(value, MOST_JOB_BYTES + 1)) > MOST_JOB_BYTES
    except zlib.error:
        return False


def _restore_harmless(job: RQJob, raw_data: Any) -> Any:
    if sum(map(len, raw_data.values())) > MOST_JOB_BYTES or any(map(_unpacks_to_more, raw_data.values())):
        raise NoSuchJobError("This is no job: it is too large.")
    try:
        restored = _restore(job, raw_data)
    except STUMBLES as error:
        raise NoSuchJobError(f"This is no job: {error!r}") from error
    for end in ("success", "failure", "stopped"):
        setattr(job, f"_{end}_callback_name", None)
    job.webhooks = []
    job.retries_left = job.repeats_left = None  # one that fails would be tried again at once, a million times
    job.timeout = max(int(job.timeout or 0), JOB_TIMEOUT_SECONDS)
    if not isinstance(job.meta, dict) or "unserialized" in job.meta:
        job.meta = {}
    job.meta.pop("queue_class_name", None)
    return restored


def trust_no_jobs() -> None:
    """Have RQ read all jobs of this process so, in JSON: its pages name neither our class nor a serializer.

    Not for projects that install the apps, which may have jobs of their own.
    """
    RQJob.restore = _restore_harmless  # type: ignore[assignment,method-assign]
    serializers.PickleSerializer = JSONSerializer  # type: ignore[assignment]
    serializers.SERIALIZER_ALIASES["pickle"] = JSONSerializer


class _Waker:
    """One background thread that turns any number of signals into few trips to Redis."""

    def __init__(self, push: Callable[[], bool]) -> None:
        self._push = push
        self._signal = threading.Event()
        self._starting = threading.Lock()
        self._pushing = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Have a worker called soon. Returns at once and never fails."""
        if self._signal.is_set():
            return
        self._signal.set()
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="waker", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._signal.wait()
            if not self._answer():
                time.sleep(REDIS_AWAY_SECONDS)
            time.sleep(COALESCE_SECONDS)

    def _answer(self) -> bool:
        """Push what was signalled until now, under the lock: who finds no signal there finds it pushed."""
        with self._pushing:
            self._signal.clear()
            return self._push()


# Until when a Redis is left alone, by its URL.
_away_until: dict[str, float] = {}


def wake_up() -> None:
    """Tell the workers that something is due. Returns at once, and does not mind a Redis that is away."""
    _waker.wake()


def wake_maintenance() -> None:
    """Have operations looked after soon; like `wake_up`."""
    _maintenance_waker.wake()


def push_wake_up() -> bool:
    """Queue a wake-up unless one is waiting; return False if Redis is away."""
    return _push(DELIVERIES, DELIVER_DUE)


def push_operations() -> bool:
    """Queue a look at operations unless something waits anyway; return False if Redis is away."""
    return _push(MAINTENANCE, RUN_OPERATIONS)


def _push(queue_name: str, task: str) -> bool:
    try:
        queue = Queue(queue_name, connection=redis_connection(), serializer=JSONSerializer, job_class=Job)
        if queue.count == 0:
            queue.enqueue_call(
                task,
                timeout=JOB_TIMEOUT_SECONDS,
                ttl=WAKE_UP_TTL_SECONDS,
                result_ttl=0,
                failure_ttl=FAILURE_TTL_SECONDS,
            )
    except redis.RedisError as error:
        logger.warning("no wake-up: Redis is away", extra={"reason": str(error)})
        return False
    return True


_waker = _Waker(push_wake_up)
_maintenance_waker = _Waker(push_operations)


def take_wake_ups() -> bool:
    """Empty the queue of wake-ups and return whether there were any: they are all alike.

    Call it before looking for work, not after. While Redis is away the answer is True
    every `REDIS_AWAY_SECONDS`, so that the caller looks for itself.
    """
    if time.monotonic() < _away_until.get(settings.REDIS_URL, 0.0):
        return False
    try:
        return bool(redis_connection().delete(Queue.redis_queue_namespace_prefix + DELIVERIES))
    except redis.RedisError:
        _away_until[settings.REDIS_URL] = time.monotonic() + REDIS_AWAY_SECONDS
        return True


# What RQ keeps under its names, by their types.
KINDS = {"rq:queues": b"set", "rq:workers": b"set", "rq:scheduler:scheduled_jobs": b"zset"} | {
    pattern.format(name): kind
    for name in (DELIVERIES, MAINTENANCE)
    for pattern, kind in {
        "rq:workers:{}": b"set",
        "rq:queue:{}": b"list",
        "rq:queue:{}:intermediate": b"list",
        "rq:wip:{}": b"zset",
        "rq:finished:{}": b"zset",
        "rq:failed:{}": b"zset",
    }.items()
}


def drop_misshapen() -> None:
    """Delete what is of another type than RQ keeps under its name: neither workers nor the clock could go on."""
    for key, kind in KINDS.items():
        found = redis_connection().type(key)
        if found not in (kind, b"none"):
            logger.warning(
                "something in Redis is no wake-up, and is deleted", extra={"key": key, "type": str(found)}
            )
            redis_connection().delete(key)


def is_redis_there() -> bool:
    """Return whether Redis answers, within a quarter of a second."""
    try:
        return bool(redis_connection().ping())
    except redis.RedisError:
        return False


def eviction_policy() -> str | None:
    """Return what Redis does when it is full, None if it does not tell."""
    try:
        policy = redis_connection().info("memory").get("maxmemory_policy")
    except redis.RedisError:
        return None
    return None if policy is None else str(policy)


def redis_connection() -> redis.Redis:
    """Return a connection that is not RQ's own: it gives up soon instead of trying for seconds."""
    return _connection_to(settings.REDIS_URL)


@lru_cache(maxsize=1)
def _connection_to(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url, socket_timeout=REDIS_TIMEOUT_SECONDS, socket_connect_timeout=REDIS_TIMEOUT_SECONDS, retry=None
    )
