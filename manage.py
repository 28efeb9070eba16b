#!/usr/bin/env python
"""Run a command of the service: `python manage.py help` lists them."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import ManagementUtility
from django.core.management.base import BaseCommand
from django.db import OperationalError, ProgrammingError
from psycopg.errors import UndefinedTable

from config import keys

EMBEDDED_HINT = " This is the database of `make run`, which has to be running."


class Utility(ManagementUtility):
    def fetch_command(self, subcommand: str) -> BaseCommand:
        from config import console_commands  # it knows models, which are loaded only now

        return console_commands.recorded(super().fetch_command(subcommand), subcommand)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        keys.require()
        Utility(sys.argv).execute()
    except KeyboardInterrupt:
        sys.exit(130)
    except ImproperlyConfigured as error:
        sys.exit(f"Cannot start: {error}")
    except (OperationalError, ProgrammingError) as error:
        if "--traceback" in sys.argv:
            raise
        sys.exit(_in_words(error))


def _in_words(error: OperationalError | ProgrammingError) -> str:
    """Say what is wrong with the database; a mistake of ours keeps its traceback."""
    if isinstance(error, OperationalError):
        hint = "" if "DATABASE_URL" in os.environ else EMBEDDED_HINT
        return f"The database does not work: {' '.join(str(error).split())}{hint}"
    if isinstance(error.__cause__, UndefinedTable):
        return "The database has not been migrated: run `manage.py migrate` first."
    raise error


if __name__ == "__main__":
    main()
