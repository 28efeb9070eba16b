from argparse import ArgumentTypeError
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.template.defaultfilters import pluralize

from deliveries import operations
from subscriptions import audit


def days(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ArgumentTypeError("write a number of days") from None
    if not 0 <= number <= 36500:
        raise ArgumentTypeError("the age is from 0 to 36500 days")
    return number


class Command(BaseCommand):
    help = "Delete settled requests by age, with their attempts. Pending ones are never deleted."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            type=days,
            default=float(settings.RETENTION_DAYS),
            metavar="DAYS",
            help="Days since the request was settled; default %(default)s.",
        )
        parser.add_argument(
            "--status",
            action="append",
            choices=operations.SETTLED_STATUSES,
            help="Only requests that ended like this; may be given several times.",
        )
        parser.add_argument("--dry-run", action="store_true", help="Only say how many would be deleted.")

    def handle(self, *args: Any, **options: Any) -> None:
        statuses = options["status"] or operations.SETTLED_STATUSES
        if options["dry_run"]:
            count = operations.count_purgeable(older_than_days=options["older_than"], statuses=statuses)
            self.stdout.write(f"{count} request{pluralize(count)} would be purged.")
            return
        conditions = {"older_than_days": options["older_than"], "statuses": list(statuses)}
        # First, and by itself: a purge has many transactions, and one that is interrupted has purged too.
        audit.record(audit.command_actor(), "purge", kind="webhook request", after=conditions)
        purged = operations.purge(**conditions, progress=self.tell)
        self.stdout.write(f"Purged {purged} request{pluralize(purged)}.")

    def tell(self, done: int) -> None:
        self.stderr.write(f"{done} purged so far")
