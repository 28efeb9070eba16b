from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from subscriptions import audit, reencryption


class Command(BaseCommand):
    help = "Encrypt every stored secret anew under the first key of SECRET_KEYS."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only say how many would be encrypted anew.")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["dry_run"]:
            audit.record(audit.command_actor(), "rotate encryption", kind="subscription")
        tally = reencryption.reencrypt(dry_run=options["dry_run"], progress=self.tell)
        for name in tally.unreadable:
            self.stderr.write(f"cannot be read: {name}")
        verb = "would be encrypted" if options["dry_run"] else "encrypted"
        self.stdout.write(f"{tally.reencrypted} secrets {verb} anew, {tally.current} were under the first key.")
        if tally.unreadable:
            raise CommandError(f"{len(tally.unreadable)} secrets cannot be read with any key of SECRET_KEYS.")

    def tell(self, done: int) -> None:
        self.stderr.write(f"{done} subscriptions looked at")
