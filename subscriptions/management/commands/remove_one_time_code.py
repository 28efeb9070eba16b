from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser

from subscriptions import audit, one_time_code


class Command(BaseCommand):
    help = "Remove the one-time code and the backup codes of a user who has lost them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError("There is no user of this name.")
        if not one_time_code.remove(user, audit.command_actor()):
            raise CommandError("This user has set up no one-time code.")
        self.stdout.write(f"{user.get_username()} logs in with the password alone from now on.")
