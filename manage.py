#!/usr/bin/env python
"""Run a command of the service: `python manage.py help` lists them."""

import errno
import io
import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import ManagementUtility
from django.core.management.base import BaseCommand
from django.db import OperationalError, ProgrammingError
from psycopg.errors import UndefinedTable

from config import keys

# What a closed pipe, a full disk and what was closed from the beginning answer.
UNWRITABLE = {errno.EPIPE, errno.ENOSPC, errno.EBADF}

EMBEDDED_HINT = " This is the database of `make run`, which has to be running."


class Utility(ManagementUtility):
    def fetch_command(self, subcommand: str) -> BaseCommand:
        from config import console_commands  # it knows models, which are loaded only now

        return console_commands.recorded(super().fetch_command(subcommand), subcommand)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    _open_what_is_closed()
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(130)
    except ImproperlyConfigured as error:
        sys.exit(f"Cannot start: {error}")
    except (OperationalError, ProgrammingError) as error:
        if "--traceback" in sys.argv:
            raise
        sys.exit(_in_words(error))
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        # What is still to be written would fail once more as Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(f"The output could not be written: {error.strerror}.")


def _open_what_is_closed() -> None:
    """Put something in the place of outputs that were closed (`>&-`), which Python has none for.

    Of what a command has to say it is to be told that it could not be written, as of a new API key;
    of the course of things it need not.
    """
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _run() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names are in any script, and a terminal may know ASCII alone.
        sys.stdout.reconfigure(errors="backslashreplace")
    for argument in sys.argv:
        if argument.encode(errors="replace").decode() != argument:
            sys.exit(f"This argument is no text in the encoding of this terminal: {argument!r}.")
    keys.require()
    try:
        Utility(sys.argv).execute()
    finally:
        # Here, and not as Python ends, it can be told that this fails.
        sys.stdout.flush()


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
