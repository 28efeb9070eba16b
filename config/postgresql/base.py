"""Django's backend for PostgreSQL, with an end to the waiting for one that says nothing."""

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
