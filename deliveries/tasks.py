"""What the queue runs. Each is harmless when it runs twice, or twice at once."""

from django.conf import settings
from django.db import connection

from deliveries import operations, queue
from deliveries.dispatcher import Dispatcher

_dispatcher: Dispatcher | None = None


def deliver_due() -> int:
    """Deliver everything that is due; return how many attempts were made.

    The dispatcher lives as long as the process, and its connections to receivers with it.
    """
    queue.take_wake_ups()
    try:
        return _get_dispatcher().drain()
    except BaseException:
        _forget_dispatcher()
        raise


def purge() -> int:
    """Delete settled requests older than RETENTION_DAYS; return how many."""
    return operations.purge(older_than_days=settings.RETENTION_DAYS)


def _get_dispatcher() -> Dispatcher:
    global _dispatcher
    if _dispatcher is None:
        _dispatcher = Dispatcher(
            work_waiting=queue.take_wake_ups, should_stop=queue.is_stopping, keep_alive=queue.keep_alive
        )
    return _dispatcher


def _forget_dispatcher() -> None:
    """Give up the calls in flight and the database connection; the leases see to the rest."""
    global _dispatcher
    if _dispatcher is not None:
        _dispatcher.close()
        _dispatcher = None
    connection.close()
