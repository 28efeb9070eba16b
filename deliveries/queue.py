"""Wake workers, and run them: the only module that knows RQ.

Redis holds nothing but nudges. The queue `deliveries` is itself the flag that says "a
worker is already called": it is only pushed to when it is empty, and whoever takes a
wake-up from it claims afterwards, so a row committed before the push is always seen. A
wake-up that gets lost costs one tick of the clock, never a delivery.
"""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from django.conf import settings
from django.db import Error, connection
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException as JobTimeoutException
from rq.utils import import_attribute
from rq.worker import WorkerStatus
from rq_scheduler.scheduler import Scheduler as RQScheduler

logger = logging.getLogger(__name__)

DELIVERIES = "deliveries"
MAINTENANCE = "maintenance"

DELIVER_DUE = "deliveries.tasks.deliver_due"
PURGE = "deliveries.tasks.purge"
CANCEL_ORPHANS = "deliveries.tasks.cancel_orphans"
RUN_OPERATIONS = "deliveries.tasks.run_operations"
BEAT_MAINTENANCE = "deliveries.tasks.beat_maintenance"
BEAT_SCHEDULER = "deliveries.tasks.beat_scheduler"
PURGE_HOUR = 3  # UTC, every day
CANCEL_ORPHANS_SECONDS = 60
RUN_OPERATIONS_SECONDS = 10

# Wake-ups within one process go to Redis together, at most once in this time.
COALESCE_SECONDS = 0.005

# A Redis that does not answer within this is left alone for a moment; nothing waits for it.
REDIS_TIMEOUT_SECONDS = 0.25
REDIS_AWAY_SECONDS = 1.0

WAKE_UP_TTL_SECONDS = 60
FAILURE_TTL_SECONDS = 600

# A drain lasts as long as there is something to do. The job's time limit therefore runs
# from the last sign of life, which the dispatcher gives this often.
KEEP_ALIVE_SECONDS = 10
JOB_TIMEOUT_SECONDS = 300
MAINTENANCE_TIMEOUT_SECONDS = 3600

# An idle worker looks for due requests by itself this often, should the clock be dead.
IDLE_LOOK_SECONDS = 5

# How long a worker waits for a job at a time, and for an answer of a Redis that hangs: at
# most twice in a row, once for a job and once to say goodbye, before it looks for itself.
JOB_WAIT_SECONDS = 2
REDIS_HANGS_AFTER_SECONDS = JOB_WAIT_SECONDS + 1
IDLE_TASKS = {DELIVERIES: DELIVER_DUE, MAINTENANCE: RUN_OPERATIONS}


class StrangeJob(Exception):
    """A job in Redis that names a function which is no task."""


# All that a job may run.
TASKS = frozenset({DELIVER_DUE, PURGE, CANCEL_ORPHANS, RUN_OPERATIONS, BEAT_MAINTENANCE, BEAT_SCHEDULER})


class Job(RQJob):
    """An RQ job that names one of TASKS, in JSON.

    Whoever can write to Redis could run code here with a pickle, with the name of any
    function, or with the callbacks that RQ takes from a job; and have RQ call any URL.
    """

    @property
    def func(self) -> Callable[..., Any]:
        """The task; raise StrangeJob for any other function."""
        if self.func_name not in TASKS:
            raise StrangeJob(f"This job is none of the service's: {self.func_name!r}.")
        task: Callable[..., Any] = import_attribute(self.func_name)
        return task

    def restore(self, raw_data: Any) -> Any:
        restored = super().restore(raw_data)
        self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = None
        self.webhooks = []
        self.meta.pop("queue_class_name", None)
        return restored

    @classmethod
    def create(cls, *args: Any, **kwargs: Any) -> RQJob:
        kwargs["serializer"] = JSONSerializer
        return super().create(*args, **kwargs)

    @classmethod
    def fetch(cls, *args: Any, **kwargs: Any) -> RQJob:
        kwargs["serializer"] = JSONSerializer
        return super().fetch(*args, **kwargs)


class _Waker:
    """One background thread that turns any number of signals into few trips to Redis."""

    def __init__(self, push: Callable[[], bool]) -> None:
        self._push = push
        self._signal = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Have a worker called soon. Returns at once and never fails."""
        if self._signal.is_set():
            return
        self._signal.set()
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="waker", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._signal.wait()
            self._signal.clear()
            if not self._push():
                time.sleep(REDIS_AWAY_SECONDS)
            time.sleep(COALESCE_SECONDS)


_connection: redis.Redis | None = None
_away_until = 0.0


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
        queue = Queue(queue_name, connection=_redis(), serializer=JSONSerializer, job_class=Job)
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
    global _away_until
    if time.monotonic() < _away_until:
        return False
    try:
        with _redis().pipeline() as pipeline:
            pipeline.lrange(Queue.redis_queue_namespace_prefix + DELIVERIES, 0, -1)
            pipeline.delete(Queue.redis_queue_namespace_prefix + DELIVERIES)
            job_ids, _ = pipeline.execute()
    except redis.RedisError:
        _away_until = time.monotonic() + REDIS_AWAY_SECONDS
        return True
    return bool(job_ids)


def is_redis_there() -> bool:
    """Return whether Redis answers, within a quarter of a second."""
    try:
        return bool(_redis().ping())
    except redis.RedisError:
        return False


def eviction_policy() -> str | None:
    """Return what Redis does when it is full, None if it does not tell."""
    try:
        policy = _redis().info("memory").get("maxmemory_policy")
    except redis.RedisError:
        return None
    return None if policy is None else str(policy)


def _redis() -> redis.Redis:
    """Return this module's own connection, which gives up soon instead of trying for seconds."""
    global _connection
    if _connection is None:
        _connection = redis.Redis.from_url(
            settings.REDIS_URL,
            socket_timeout=REDIS_TIMEOUT_SECONDS,
            socket_connect_timeout=REDIS_TIMEOUT_SECONDS,
            retry=None,
        )
    return _connection


class Worker(SimpleWorker):
    """A worker that does not fork, so that connections and TLS sessions live on between jobs.

    It outlives Redis: while Redis is away it keeps trying, and keeps looking for due
    requests by itself, as it does when it is idle.
    """

    max_connection_wait_time = 1.0
    # RQ's own is 10 seconds longer than the wait for a job.
    connection_timeout = REDIS_HANGS_AFTER_SECONDS
    current: "Worker | None" = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # RQ waits for a job for 15 seconds less than this.
        kwargs |= {"worker_ttl": JOB_WAIT_SECONDS + 15, "log_job_description": False}
        super().__init__(*args, **kwargs)
        self._kept_alive_at = 0.0
        Worker.current = self

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        if pipeline is None and self.get_state() == WorkerStatus.IDLE:
            look_around(self.queue_names()[0])
            if _is_told_to_stop:
                raise StopRequested
        super().heartbeat(timeout, pipeline=pipeline)

    def stop_after_job(self) -> None:
        self._stop_requested = True

    def perform_job(self, job: Any, queue: Any) -> bool:
        with _uninterrupted():
            return super().perform_job(job, queue)

    def _install_signal_handlers(self) -> None:
        """Leave the handlers of `run_worker` in place: RQ's would raise into a delivery."""

    def keep_alive(self) -> None:
        """Say that the running job makes progress; does nothing most of the time."""
        now = time.monotonic()
        if now - self._kept_alive_at < KEEP_ALIVE_SECONDS:
            return
        self._kept_alive_at = now
        signal.alarm(JOB_TIMEOUT_SECONDS)
        # Not over RQ's own connection, which waits for a Redis that hangs for seconds.
        with contextlib.suppress(redis.RedisError):
            _redis().expire(self.key, JOB_TIMEOUT_SECONDS)


_looked_at = 0.0


def look_around(queue_name: str) -> None:
    """Do what an idle worker does by itself, without a job, at most every `IDLE_LOOK_SECONDS`."""
    global _looked_at
    if time.monotonic() - _looked_at < IDLE_LOOK_SECONDS - 1:
        return
    _looked_at = time.monotonic()
    run_outliving_the_database(IDLE_TASKS[queue_name])


def run_outliving_the_database(task: str) -> None:
    """Run one of deliveries.tasks in this process; a database that is away only costs a line in the log."""
    try:
        with _uninterrupted():
            import_attribute(task)()
    except Error as error:
        logger.warning("the database is away", extra={"task": task, "reason": str(error)})
        connection.close()


_is_told_to_stop = False
_is_uninterrupted = False


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Have SIGTERM only noted within the block: what is in flight comes to its end first."""
    global _is_uninterrupted
    before, _is_uninterrupted = _is_uninterrupted, True
    try:
        yield
    finally:
        _is_uninterrupted = before


def _stop(number: int, frame: Any) -> None:
    """Note that this process is to end, and end what waits for work at once; asked again, end anyhow."""
    global _is_told_to_stop
    if _is_told_to_stop and number == signal.SIGINT:
        raise SystemExit(1)
    _is_told_to_stop = True
    if Worker.current is not None:
        Worker.current.stop_after_job()
    if not _is_uninterrupted:
        raise StopRequested


def is_stopping() -> bool:
    """Return whether this process was told to stop."""
    return _is_told_to_stop


def keep_alive() -> None:
    """Tell RQ, now and then, that the running job makes progress."""
    if Worker.current is not None and Worker.current.get_state() == WorkerStatus.BUSY:
        Worker.current.keep_alive()


def run_worker(queue_name: str, *, make_worker: Callable[[], Worker], burst: bool = False) -> None:
    """Work on one queue until told to stop, with a new RQ worker whenever one gives up.

    RQ ends a worker on many an error, and with exit status 0; a supervisor would have to
    be told to restart it always. While no worker can live, because Redis is away, full or
    hangs, what is due is looked for all the same.
    """
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        while not _is_told_to_stop:
            _work(queue_name, make_worker, burst=burst)
            if burst:
                return
            if not _is_told_to_stop:
                look_around(queue_name)
                time.sleep(REDIS_AWAY_SECONDS)
    except StopRequested:
        return
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _work(queue_name: str, make_worker: Callable[[], Worker], *, burst: bool) -> None:
    """Let one RQ worker work until it gives up, or is told to stop."""
    try:
        make_worker().work(burst=burst, logging_level="WARNING")
    except redis.RedisError as error:
        logger.warning("the worker lost Redis", extra={"queue": queue_name, "reason": str(error)})


class Scheduler(RQScheduler):  # type: ignore[misc]
    """rq-scheduler's clock, which puts its periodic jobs back when Redis has lost them."""

    job_class = Job

    def enqueue_jobs(self) -> Any:
        run_outliving_the_database(BEAT_SCHEDULER)
        self.register_periodic_jobs()
        return super().enqueue_jobs()

    def _install_signal_handlers(self) -> None:
        """End at once when told to: RQ's own handler first waits for Redis."""

        def stop(number: int, frame: Any) -> None:
            raise SystemExit(0)

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)

    def remove_lock(self) -> None:
        with contextlib.suppress(redis.RedisError):
            super().remove_lock()

    def register_death(self) -> None:
        with contextlib.suppress(redis.RedisError):
            super().register_death()

    def register_periodic_jobs(self) -> None:
        """Register the periodic jobs that are not there, under fixed ids."""
        if "tick" not in self:
            self.schedule(
                datetime.now(UTC),
                DELIVER_DUE,
                interval=settings.TICK_SECONDS,
                id="tick",
                queue_name=DELIVERIES,
                timeout=JOB_TIMEOUT_SECONDS,
            )
        if "cancel-orphans" not in self:
            self.schedule(
                datetime.now(UTC),
                CANCEL_ORPHANS,
                interval=CANCEL_ORPHANS_SECONDS,
                id="cancel-orphans",
                queue_name=MAINTENANCE,
                timeout=MAINTENANCE_TIMEOUT_SECONDS,
            )
        if "operations" not in self:
            self.schedule(
                datetime.now(UTC),
                RUN_OPERATIONS,
                interval=RUN_OPERATIONS_SECONDS,
                id="operations",
                queue_name=MAINTENANCE,
                timeout=JOB_TIMEOUT_SECONDS,
            )
        if "purge" not in self:
            self.schedule(
                _next_purge(datetime.now(UTC)),
                PURGE,
                interval=24 * 3600,
                id="purge",
                queue_name=MAINTENANCE,
                timeout=MAINTENANCE_TIMEOUT_SECONDS,
            )


def _next_purge(now: datetime) -> datetime:
    # Not a cron string: rq-scheduler reads those in the local time of the process.
    today = now.replace(hour=PURGE_HOUR, minute=0, second=0, microsecond=0)
    return today if today > now else today + timedelta(days=1)


def run_scheduler() -> None:
    """Run the clock until told to stop; while Redis is away, try again every second."""
    while True:
        scheduler = Scheduler(
            connection=redis.Redis.from_url(settings.REDIS_URL, socket_timeout=5),
            interval=settings.TICK_SECONDS,
            queue_name=DELIVERIES,
        )
        try:
            scheduler.run()
        except redis.RedisError as error:
            logger.warning("the scheduler lost Redis", extra={"reason": str(error)})
        time.sleep(REDIS_AWAY_SECONDS)
