"""What the queue runs. Each is harmless when it runs twice, or twice at once."""

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

_dispatcher: Dispatcher | None = None
_tally = Tally()
_unanswered = UnansweredClaims()
_beaten_at = 0.0


def deliver_due() -> int:
    """Deliver everything that is due; return how many attempts were made.

    The dispatcher lives as long as the process, and its connections to receivers with it.
    """
    queue.take_wake_ups()
    try:
        _beat(Heartbeat.Kind.WORKER)
        return _get_dispatcher().drain()
    except Exception:
        # Nothing ends here. Whatever is raised, RQ's time limit included, may have struck anywhere
        # in the loop, which is not to go on from there with the next job; the leases see to the
        # calls in flight.
        connection.close()
        _close_dispatcher()
        raise


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
    _beat(Heartbeat.Kind.MAINTENANCE)


def beat_scheduler() -> None:
    """Say that the scheduler is alive."""
    _beat(Heartbeat.Kind.SCHEDULER)


def _beat(kind: str) -> None:
    global _beaten_at
    if time.monotonic() - _beaten_at >= BEAT_SECONDS:
        # Noted first: a database that hangs is not to be waited for at every turn of a loop.
        _beaten_at = time.monotonic()
        with sql.deadline(BEAT_DEADLINE_SECONDS):
            counts = _tally.document() if kind == Heartbeat.Kind.WORKER else None
            Heartbeat.objects.beat(kind, f"{socket.gethostname()}:{os.getpid()}", counts)


def _keep_alive() -> None:
    """Give the signs of life of a long drain; the dispatcher itself deals with a database that is away."""
    worker.keep_alive()
    try:
        _beat(Heartbeat.Kind.WORKER)
    except Error:
        connection.close()


def _get_dispatcher() -> Dispatcher:
    global _dispatcher
    if _dispatcher is None:
        _dispatcher = Dispatcher(
            work_waiting=queue.take_wake_ups,
            should_stop=worker.is_stopping,
            keep_alive=_keep_alive,
            tally=_tally,
            unanswered=_unanswered,
        )
    return _dispatcher


def begin_afresh() -> None:
    """Have this process be a worker that has just started: nothing in flight, nothing counted or told."""
    global _tally, _unanswered, _beaten_at
    _close_dispatcher()
    _tally = Tally()
    _unanswered = UnansweredClaims()
    _beaten_at = 0.0


def _close_dispatcher() -> None:
    global _dispatcher
    dispatcher, _dispatcher = _dispatcher, None
    if dispatcher is not None:
        dispatcher.close()  # which may fail after whatever was raised, and is not to be tried again
