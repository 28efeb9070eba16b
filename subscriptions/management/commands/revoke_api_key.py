from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from subscriptions import audit
from subscriptions.api_keys import ApiKey
from subscriptions.visible import visible


class Command(BaseCommand):
    help = "Revoke an API key: whoever uses it is refused from now on. It cannot be brought back."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "key", help="The beginning of the key as list_api_keys shows it (whk_0123456789ab), not the whole key."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        prefix = options["key"].removeprefix(ApiKey.PREFIX).partition("_")[0]
        with transaction.atomic():
            keys = ApiKey.objects.filter(prefix=prefix.replace("\0", ""))
            key = keys.first()
            if key is None:
                raise CommandError("There is no such API key; list_api_keys shows them all.")
            revoked = keys.revoke()
            if revoked:
                audit.record(audit.command_actor(), "revoke", kind="API key", object_id=key.id)
        told = "Revoked API key" if revoked else "Revoked already: API key"
        self.stdout.write(f"{told} {visible(str(key))}.")
