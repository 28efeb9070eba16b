"""Run workers, which outlive Redis and the database, end their calls before they end, and look for themselves."""

import contextlib
import gc
import logging
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import redis
from django.db import Error, connection
from redis._parsers.hiredis import _HiredisParser
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import SimpleWorker, worker_registration
from rq.exceptions import DequeueTimeout, NoSuchJobError, StopRequested
from rq.job import Job as RQJob
from rq.utils import import_attribute, now
from rq.worker import WorkerStatus

from deliveries import queue

logger = logging.getLogger(__name__)

# How often a drain gives a sign of life; see JOB_TIMEOUT_SECONDS in deliveries/queue.py.
KEEP_ALIVE_SECONDS = 10

# An idle worker looks for due requests by itself this often, should the scheduler be dead.
IDLE_LOOK_SECONDS = 5
IDLE_TASKS = {queue.DELIVERIES: queue.DELIVER_DUE, queue.MAINTENANCE: queue.RUN_OPERATIONS}

# How long a worker waits for a job at a time, and for an answer of a Redis that hangs,
# before it looks for itself.
JOB_WAIT_SECONDS = 2
REDIS_HANGS_AFTER_SECONDS = JOB_WAIT_SECONDS + 1

# Of more workers than these RQ would take long to find out which are alive.
MOST_WORKERS = 1_000

# What Redis answers a worker is small: a job, or the names of MOST_WORKERS.
MOST_ANSWER_BYTES = 1_000_000

# Python looks for garbage in cycles when there are so many objects more than at the last time.
# A drain leaves none behind, and with Python's own 700 a tenth of its time goes into looking.
GARBAGE_THRESHOLD = 50_000


class TakenJob(queue.Job):
    """A job as a worker takes it from its queue."""

    @classmethod
    def fetch(cls, *args: Any, **kwargs: Any) -> RQJob:
        """Return the job; one that is not there, or is none, counts as none having come.

        RQ would take one after the other, a million of them if need be, without looking around.
        """
        try:
            return super().fetch(*args, **kwargs)
        except (NoSuchJobError, ValueError, redis.ResponseError, redis.InvalidResponse) as error:
            raise DequeueTimeout(JOB_WAIT_SECONDS, args[0]) from error

    @classmethod
    def fetch_many(cls, *args: Any, **kwargs: Any) -> list[RQJob | None]:
        """Return none: RQ asks for the jobs that wait for one. None of ours does, and there may be a million."""
        return []


class BriefAnswers(_HiredisParser):
    """Has a client of Redis give up on an answer larger than any that a worker asks for."""

    _size = 0

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        self._size = 0
        return super().read_response(*args, **kwargs)

    def read_from_socket(self, *args: Any, **kwargs: Any) -> bool:
        before = self._reader.len()
        is_read = bool(super().read_from_socket(*args, **kwargs))  # type: ignore[no-untyped-call]
        self._size += self._reader.len() - before
        if self._size > MOST_ANSWER_BYTES:
            raise redis.InvalidResponse("This answer of Redis is too large.")
        return is_read


class AskingOnce(Retry):
    """Has a client of Redis give up for good when an answer did not come in time.

    RQ's bookkeeping of a job asks up to five times, one after the other, whatever came of the last.
    """

    def __init__(self) -> None:
        super().__init__(NoBackoff(), 0)
        self._hangs = False

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # one for all connections of a client, each of which would have a copy

    def call_with_retry(self, *args: Any, **kwargs: Any) -> Any:
        if self._hangs:
            raise redis.TimeoutError("Redis has not answered before.")
        try:
            return super().call_with_retry(*args, **kwargs)
        except redis.TimeoutError:
            self._hangs = True
            raise


class Worker(SimpleWorker):
    """A worker that does not fork, so that connections and TLS sessions live on between jobs.

    It outlives Redis: while Redis is away it keeps trying, and keeps looking for due
    requests by itself, as it does when it is idle. When Redis hangs it gives up, and
    `run_worker` looks, and makes another.
    """

    max_connection_wait_time = 1.0
    # RQ's own is 10 seconds longer than the wait for a job.
    connection_timeout = REDIS_HANGS_AFTER_SECONDS
    current: "Worker | None" = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # RQ waits for a job for 15 seconds less than this.
        kwargs |= {"worker_ttl": JOB_WAIT_SECONDS + 15, "log_job_description": False}
        kwargs["connection"].connection_pool.connection_kwargs |= {
            "retry": AskingOnce(),
            "parser_class": BriefAnswers,
        }
        super().__init__(*args, **kwargs)
        self._kept_alive_at = 0.0
        Worker.current = self

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        if pipeline is None and self.get_state() == WorkerStatus.IDLE:
            look_around(self.queue_names()[0])
            if _is_told_to_stop:
                raise StopRequested
        super().heartbeat(timeout, pipeline=pipeline)

    def subscribe(self) -> None:
        """Take no commands from Redis: RQ's could end this worker. Signals do."""

    def check_for_suspension(self, burst: bool) -> None:  # noqa: FBT001 - RQ's signature
        """Work on: RQ's suspension is a key in Redis, with which nothing would be delivered any more."""

    def run_maintenance_tasks(self) -> None:
        """Forget jobs that are over, unread: RQ would fetch each, and there may be a million that are none."""
        for each in self.queues:
            for registry in (each.started_job_registry, each.finished_job_registry, each.failed_job_registry):
                self.connection.zremrangebyscore(registry.key, "-inf", int(time.time()))
            self.connection.delete(each.intermediate_queue_key)
            if self.connection.scard(worker_registration.WORKERS_BY_QUEUE_KEY % each.name) <= MOST_WORKERS:
                # over what is no worker's name
                with contextlib.suppress(UnicodeDecodeError, redis.InvalidResponse):
                    worker_registration.clean_worker_registry(each)
        self.last_cleaned_at = now()  # type: ignore[assignment]

    def stop_after_job(self) -> None:
        self._stop_requested = True

    def perform_job(self, job: Any, queue: Any) -> bool:
        job.origin = queue.name  # where it was taken from, whatever it says itself
        with _uninterrupted():
            is_done = super().perform_job(job, queue)
        if not is_done:
            gc.collect()  # of a failure RQ leaves circles behind, with all that the job held
        return is_done

    def _install_signal_handlers(self) -> None:
        """Leave the handlers of `run_worker` in place: RQ's would raise into a delivery."""

    def keep_alive(self) -> None:
        """Say that the running job makes progress; does nothing most of the time."""
        now = time.monotonic()
        if now - self._kept_alive_at < KEEP_ALIVE_SECONDS:
            return
        self._kept_alive_at = now
        signal.alarm(queue.JOB_TIMEOUT_SECONDS)
        # Not over RQ's own connection, which waits for a Redis that hangs for seconds.
        with contextlib.suppress(redis.RedisError):
            queue.redis_connection().expire(self.key, queue.JOB_TIMEOUT_SECONDS)


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
        with _seldom_collecting():
            while not _is_told_to_stop:
                _work(queue_name, make_worker, burst=burst)
                gc.collect()  # a worker that gave up leaves circles behind too
                if burst:
                    return
                if not _is_told_to_stop:
                    look_around(queue_name)
                    time.sleep(queue.REDIS_AWAY_SECONDS)
    except StopRequested:
        return
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Within the block, look for garbage in cycles seldom, and never in what was there before."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _work(queue_name: str, make_worker: Callable[[], Worker], *, burst: bool) -> None:
    """Let one RQ worker work until it gives up, or is told to stop."""
    try:
        queue.drop_misshapen()
        make_worker().work(burst=burst, logging_level="WARNING")
    except redis.RedisError as error:
        if burst:
            raise
        logger.warning("the worker lost Redis", extra={"queue": queue_name, "reason": str(error)})
    finally:
        # One that gave up in the middle of a job counts as busy with it for ever, and the alarm that a sign
        # of life sets then would end the process.
        Worker.current = None
