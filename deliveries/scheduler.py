"""Run the clock: rq-scheduler, with the periodic jobs that are the service's."""

import contextlib
import logging
import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from django.conf import settings
from rq_scheduler.scheduler import Scheduler as RQScheduler

from deliveries import queue
from deliveries.worker import run_outliving_the_database

logger = logging.getLogger(__name__)

PURGE_HOUR = 3  # UTC, every day
CANCEL_ORPHANS_SECONDS = 60
RUN_OPERATIONS_SECONDS = 10
WARN_SECONDS = 60
LONG_TIMEOUT_SECONDS = 3600

# So far the clocks of hosts may differ before one scheduler takes the jobs of another for misplaced.
CLOCKS_DIFFER_SECONDS = 60

# rq-scheduler takes its lock for its interval and so many seconds.
LOCK_MARGIN_SECONDS = 10

# What RQ and rq-scheduler keep of a job, by its id, and read or write when it runs.
KEPT = ("rq:job:{}", "rq:job:{}:dependents", "rq:executions:{}", "rq:results:{}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _PeriodicJob:
    """A task that is queued at intervals."""

    id: str
    task: str
    queue_name: str = queue.MAINTENANCE
    first_at: datetime
    interval_seconds: int
    timeout_seconds: int = queue.JOB_TIMEOUT_SECONDS


class Scheduler(RQScheduler):  # type: ignore[misc]
    """rq-scheduler's clock, which puts its periodic jobs back when Redis has lost them.

    It queues these and no others, and makes them anew each time: what is in Redis anybody may
    have written, such as a job that cannot be read, with which the clock would stand still.
    """

    job_class = queue.Job

    def enqueue_jobs(self) -> None:
        run_outliving_the_database(queue.BEAT_SCHEDULER)
        self.register_periodic_jobs()
        now = datetime.now(UTC)
        for job in _periodic_jobs(now):
            due_at = self.connection.zscore(self.scheduled_jobs_key, job.id)
            if due_at is not None and due_at <= now.timestamp():
                self.enqueue_job(self._register(job, now))

    def acquire_lock(self) -> Any:
        """Take the lock; what is held longer than any scheduler would hold it is nobody's."""
        left = self.connection.ttl(self.scheduler_lock_key)
        if left == -1 or left > self._interval + LOCK_MARGIN_SECONDS:
            self.connection.delete(self.scheduler_lock_key)
        return super().acquire_lock()

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
        now = datetime.now(UTC)
        for job in _periodic_jobs(now):
            if not self._is_registered(job, now):
                self._register(job, job.first_at)

    def _register(self, job: _PeriodicJob, at: datetime) -> queue.Job:
        self.connection.delete(*(key.format(job.id) for key in KEPT))
        registered: queue.Job = self.schedule(
            at,
            job.task,
            interval=job.interval_seconds,
            id=job.id,
            queue_name=job.queue_name,
            timeout=job.timeout_seconds,
        )
        return registered

    def _is_registered(self, job: _PeriodicJob, now: datetime) -> bool:
        due_at: float | None = self.connection.zscore(self.scheduled_jobs_key, job.id)
        # What is further away than its interval was left by a host whose clock is ahead.
        return due_at is not None and due_at <= now.timestamp() + job.interval_seconds + CLOCKS_DIFFER_SECONDS


def _periodic_jobs(now: datetime) -> list[_PeriodicJob]:
    return [
        _PeriodicJob(
            id="tick",
            task=queue.DELIVER_DUE,
            queue_name=queue.DELIVERIES,
            first_at=now,
            interval_seconds=settings.TICK_SECONDS,
        ),
        _PeriodicJob(
            id="cancel-orphans",
            task=queue.CANCEL_ORPHANS,
            first_at=now,
            interval_seconds=CANCEL_ORPHANS_SECONDS,
            timeout_seconds=LONG_TIMEOUT_SECONDS,
        ),
        _PeriodicJob(
            id="operations", task=queue.RUN_OPERATIONS, first_at=now, interval_seconds=RUN_OPERATIONS_SECONDS
        ),
        _PeriodicJob(id="warn", task=queue.WARN, first_at=now, interval_seconds=WARN_SECONDS),
        _PeriodicJob(
            id="purge",
            task=queue.PURGE,
            first_at=_next_purge(now),
            interval_seconds=24 * 3600,
            timeout_seconds=LONG_TIMEOUT_SECONDS,
        ),
    ]


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
            queue_name=queue.DELIVERIES,
        )
        try:
            queue.drop_misshapen()
            scheduler.run()
        except redis.RedisError as error:
            logger.warning("the scheduler lost Redis", extra={"reason": str(error)})
        time.sleep(queue.REDIS_AWAY_SECONDS)
