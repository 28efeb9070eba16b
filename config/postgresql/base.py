"""Django's backend for PostgreSQL, with an end to the waiting for one that says nothing."""

import functools
import time
from collections.abc import Callable
from typing import Any

from django.db.backends.postgresql import base
from django.db.utils import OperationalError

from deliveries import sql

# As long as a call may wait for the database in all.
ANSWER_SECONDS = 2.0


class DatabaseWrapper(base.DatabaseWrapper):
    def is_usable(self) -> bool:
        """Return whether a kept connection still answers, and soon: Django itself would wait for ever."""
        try:
            with sql.deadline(ANSWER_SECONDS):
                return super().is_usable()
        except OperationalError:
            return False

    def close_if_health_check_failed(self) -> None:
        """Close a kept connection that is gone; raise for one that says nothing.

        Django would then connect anew, which with a silent server is one more wait of the same length.
        """
        kept, started_at = self.connection, time.monotonic()
        super().close_if_health_check_failed()
        if self.connection is not kept and time.monotonic() - started_at >= sql.ANSWER_SECONDS:
            raise OperationalError("The database does not answer.")

    def set_autocommit(self, autocommit: bool, *options: bool, **named: bool) -> None:  # noqa: FBT001 - Django's signature
        """Do nothing where the connection was lost in a transaction: Django would make one, to end it so."""
        if self.connection is not None or not autocommit:
            super().set_autocommit(autocommit, *options, **named)

    def commit(self) -> None:
        self._run_wrapped(super().commit, "COMMIT")

    def rollback(self) -> None:
        self._run_wrapped(super().rollback, "ROLLBACK")

    def _run_wrapped(self, action: Callable[[], None], statement: str) -> None:
        """Run what ends a transaction as Django runs a statement, so that it has the deadline of one."""

        def execute(*query: Any) -> None:
            action()

        for wrapper in reversed(self.execute_wrappers if self.connection is not None else ()):
            execute = functools.partial(wrapper, execute)
        execute(statement, None, False, {"connection": self})  # noqa: FBT003 - Django's signature
