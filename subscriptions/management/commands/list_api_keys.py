from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from subscriptions.api_keys import ApiKey
from subscriptions.visible import visible

HEADINGS = ("key", "name", "scopes", "tenant", "state", "last used")


class Command(BaseCommand):
    help = "List the API keys, newest first: whose they are, what they may do, when they were used."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--tenant", help="Only the keys bound to this customer.")
        parser.add_argument("--all", action="store_true", help="Those that are expired or revoked, too.")

    def handle(self, *args: Any, **options: Any) -> None:
        keys = ApiKey.objects.all() if options["all"] else ApiKey.objects.usable()
        if options["tenant"] is not None:
            keys = keys.filter(tenant=options["tenant"])
        rows = [HEADINGS, *(_row(key) for key in keys)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
        for row in rows:
            line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
            self.stdout.write(line.rstrip())


def _row(key: ApiKey) -> tuple[str, ...]:
    return (
        f"{key.PREFIX}{key.prefix}",
        visible(key.name),
        ",".join(key.scopes),
        "all tenants" if key.tenant is None else visible(key.tenant) or '""',
        key.state,
        "never" if key.last_used_at is None else f"{key.last_used_at:%Y-%m-%d %H:%M}",
    )
