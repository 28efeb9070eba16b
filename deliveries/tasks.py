"""What the queue runs. Each is harmless when it runs twice, or twice at once."""

import contextlib
import math
import os
import socket
import time

from django.conf import settings
from django.db import Error, connection

from deliveries import bulk_runs, operations, orphans, queue, sql, troubles, worker
from deliveries.dispatcher import Dispatcher
from deliveries.models import Heartbeat
from deliveries.tallies import Tally
from deliveries.unsent import UnansweredClaims

# How often a process says that it is alive.
BEAT_SECONDS = 5.0
BEAT_DEADLINE_SECONDS = 1.0

# How long operations are run before whatever else waits for the maintenance worker.
OPERATIONS_SECONDS = 10.0


class Process:
    """What a process keeps from one task to the next: its dispatcher, and what it has counted and told.

    The dispatcher lives as long as the process, and its connections to receivers with it.
    """

    def __init__(self) -> None:
        self._dispatcher: Dispatcher | None = None
        self._tally = Tally()
        self._unanswered = UnansweredClaims()
        self._beaten_at = -math.inf

    def drain(self) -> int:
        """Deliver everything that is due; return how many attempts were made."""
        try:
            self.beat(Heartbeat.Kind.WORKER)
            return self.dispatcher().drain()
        except Exception:
            # Nothing ends here. Whatever is raised, RQ's time limit included, may have struck anywhere
            # in the loop, which is not to go on from there with the next job; the leases see to the
            # calls in flight.
            connection.close()
            self.close()
            raise
        finally:
            if worker.is_stopping():
                self._give_back()

    def dispatcher(self) -> Dispatcher:
        if self._dispatcher is None:
            self._dispatcher = Dispatcher(
                work_waiting=queue.take_wake_ups,
                should_stop=worker.is_stopping,
                keep_alive=self._keep_alive,
                tally=self._tally,
                unanswered=self._unanswered,
            )
        return self._dispatcher

    def beat(self, kind: str) -> None:
        """Say now and then that this process is alive, and if it is a worker's what it has counted."""
        if time.monotonic() - self._beaten_at < BEAT_SECONDS:
            return
        # Noted first: a database that hangs is not to be waited for at every turn of a loop.
        self._beaten_at = time.monotonic()
        with sql.deadline(BEAT_DEADLINE_SECONDS):
            counts = self._tally.document() if kind == Heartbeat.Kind.WORKER else None
            Heartbeat.objects.beat(kind, f"{socket.gethostname()}:{os.getpid()}", counts)

    def close(self) -> None:
        """Give up the dispatcher with its calls in flight; the next drain has a new one."""
        dispatcher, self._dispatcher = self._dispatcher, None
        if dispatcher is not None:
            dispatcher.close()  # which may fail after whatever was raised, and is not to be tried again

    def _give_back(self) -> None:
        """Give back what this process may have claimed without being told: it claims nothing more."""
        if self._unanswered.are_there:
            with contextlib.suppress(Error), sql.deadline(BEAT_DEADLINE_SECONDS):
                self._unanswered.give_back()

    def _keep_alive(self) -> None:
        """Give the signs of life of a long drain; the dispatcher itself deals with a database that is away."""
        worker.keep_alive()
        try:
            self.beat(Heartbeat.Kind.WORKER)
        except Error:
            connection.close()


process = Process()


def deliver_due() -> int:
    """Deliver everything that is due; return how many attempts were made."""
    queue.take_wake_ups()
    return process.drain()


def purge() -> int:
    """Delete settled requests older than RETENTION_DAYS; return how many."""
    return operations.purge(older_than_days=settings.RETENTION_DAYS, progress=lambda done: beat_maintenance())


def run_operations() -> None:
    """Do the batches of operations that are due, for some seconds: the purge is to have its turn too."""
    ends_at = time.monotonic() + OPERATIONS_SECONDS
    while not worker.is_stopping():
        beat_maintenance()
        pause = bulk_runs.step()
        if pause is None:
            return
        if time.monotonic() > ends_at:
            queue.push_operations()
            return
        time.sleep(pause)


def cancel_orphans() -> int:
    """Cancel what is still pending for deleted subscriptions; return how many."""
    canceled = 0
    while batch := orphans.cancel(limit=orphans.BATCH):
        beat_maintenance()
        canceled += batch
    return canceled


def warn() -> int:
    """Tell people of the subscriptions that are about to be disabled, or were; return how many."""
    return troubles.tell()


def beat_maintenance() -> None:
    """Say that the maintenance worker is alive."""
    process.beat(Heartbeat.Kind.MAINTENANCE)


def beat_scheduler() -> None:
    """Say that the scheduler is alive."""
    process.beat(Heartbeat.Kind.SCHEDULER)
