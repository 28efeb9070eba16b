from argparse import ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from subscriptions import audit
from subscriptions.api_keys import ApiKey

MAX_TEXT_LENGTH = 255
MAX_DAYS = 36500


def text(value: str) -> str:
    if len(value) > MAX_TEXT_LENGTH or not value.isprintable():
        raise ArgumentTypeError(f"write at most {MAX_TEXT_LENGTH} printable characters")
    return value


def name(value: str) -> str:
    if not value.strip():
        raise ArgumentTypeError("write a name to know the key by")
    return text(value)


def days(value: str) -> timedelta:
    try:
        number = float(value)
    except ValueError:
        raise ArgumentTypeError("write a number of days") from None
    if not 0 < number <= MAX_DAYS:
        raise ArgumentTypeError(f"a key expires after more than 0 and at most {MAX_DAYS} days")
    return timedelta(days=number)


class Command(BaseCommand):
    help = "Create an API key. It is printed once, alone on the last line, and stored only as a hash."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--name", type=name, required=True, help="What the key is for, to know it by.")
        parser.add_argument(
            "--scope",
            action="append",
            choices=ApiKey.Scope.values,
            required=True,
            help="What the key may do; may be given several times.",
        )
        parser.add_argument(
            "--tenant", type=text, help="Bind the key to one customer; without it, it sees every one."
        )
        parser.add_argument(
            "--expires-in-days",
            type=days,
            metavar="DAYS",
            help="Days until the key expires; without it, it never does.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        scopes = list(dict.fromkeys(options["scope"]))
        with transaction.atomic():
            key, key_text = ApiKey.objects.create_key(
                options["name"], scopes, tenant=options["tenant"], valid_for=options["expires_in_days"]
            )
            audit.record(audit.command_actor(), "create", kind="API key", object_id=key.id)
            # Before it is stored for good: of a key that cannot be shown there shall be none.
            self.stdout.write(f"Created API key {key}. It is shown only now:")
            self.stdout.write(key_text)
            self.stdout.flush()
