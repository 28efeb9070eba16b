#!/usr/bin/env python
"""Run a command of the service: `python manage.py help` lists them."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import ManagementUtility
from django.core.management.base import BaseCommand

from config import keys


class Utility(ManagementUtility):
    def fetch_command(self, subcommand: str) -> BaseCommand:
        from config import console_commands  # it knows models, which are loaded only now

        return console_commands.recorded(super().fetch_command(subcommand), subcommand)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        keys.require()
        Utility(sys.argv).execute()
    except ImproperlyConfigured as error:
        sys.exit(f"Cannot start: {error}")


if __name__ == "__main__":
    main()
