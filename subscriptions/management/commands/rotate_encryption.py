from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError, CommandParser

from subscriptions import audit, reencryption
from subscriptions.reencryption import Tally


class Command(BaseCommand):
    help = "Encrypt every stored secret anew under the first key of SECRET_KEYS."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only say how many would be encrypted anew.")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["dry_run"]:
            audit.record(audit.command_actor(), "rotate encryption", kind="subscription")
        tally = reencryption.reencrypt(dry_run=options["dry_run"], progress=self.tell)
        _reencrypt_one_time_codes(tally, dry_run=options["dry_run"])
        for name in tally.unreadable:
            self.stderr.write(f"cannot be read: {name}")
        verb = "would be encrypted" if options["dry_run"] else "encrypted"
        self.stdout.write(f"{tally.reencrypted} secrets {verb} anew, {tally.current} were under the first key.")
        if tally.unreadable:
            raise CommandError(f"{len(tally.unreadable)} secrets cannot be read with any key of SECRET_KEYS.")

    def tell(self, done: int) -> None:
        self.stderr.write(f"{done} subscriptions looked at")


def _reencrypt_one_time_codes(tally: Tally, *, dry_run: bool) -> None:
    # A project that has its own admin may have no such codes.
    if apps.is_installed("django_otp.plugins.otp_totp"):
        from subscriptions import code_keys

        code_keys.reencrypt(tally, dry_run=dry_run)
