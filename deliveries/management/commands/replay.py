from argparse import ArgumentTypeError
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.defaultfilters import pluralize

from deliveries import operations
from deliveries.models import WebhookRequest
from deliveries.operations import Selection
from subscriptions import audit
from subscriptions.models import Subscription


def moment(text: str) -> datetime:
    """Read an RFC 3339 time or a date; without an offset it is UTC."""
    try:
        value = datetime.fromisoformat(text)
        # PostgreSQL does not know all offsets that Python knows.
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ArgumentTypeError("write a time such as 2026-11-24T12:00:00Z, or a date") from None


def require_known(request_ids: list[UUID]) -> None:
    """Raise CommandError if one of these requests does not exist: a wrong id is not to be taken for a replay."""
    known = set(WebhookRequest.objects.filter(id__in=request_ids).values_list("id", flat=True))
    unknown = [str(request_id) for request_id in request_ids if request_id not in known]
    if unknown:
        raise CommandError(f"No webhook request has the id {', '.join(unknown)}. Nothing is replayed.")


def require_sensible(selection: Selection) -> None:
    """Raise CommandError if no request can ever be in this selection: a slip is not to be taken for a replay."""
    since, until = selection.received_since, selection.received_until
    if since is not None and until is not None and since >= until:
        raise CommandError("--since has to be before --until. Nothing is replayed.")
    wanted = selection.subscription_id
    if wanted is not None and not Subscription.objects.filter(id=wanted).exists():
        raise CommandError(f"No subscription has the id {wanted}. Nothing is replayed.")


class Command(BaseCommand):
    help = "Deliver settled requests again, by id or by what they have in common."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("request_id", nargs="*", type=UUID, help="Requests to replay.")
        parser.add_argument("--subscription", type=UUID, metavar="ID", help="Only requests of this subscription.")
        parser.add_argument(
            "--status",
            action="append",
            choices=operations.SETTLED_STATUSES,
            help="Only requests that ended like this; may be given several times.",
        )
        parser.add_argument("--since", type=moment, metavar="TIME", help="Received at this time or later.")
        parser.add_argument("--until", type=moment, metavar="TIME", help="Received before this time.")
        parser.add_argument("--event-type", metavar="TYPE", help="Only requests of exactly this event type.")
        parser.add_argument("--dry-run", action="store_true", help="Only say how many would be replayed.")

    def handle(self, *args: Any, **options: Any) -> None:
        selection = Selection(
            ids=options["request_id"] or None,
            subscription_id=options["subscription"],
            statuses=options["status"],
            received_since=options["since"],
            received_until=options["until"],
            event_type=options["event_type"],
        )
        if selection == Selection():
            raise CommandError(
                "Say which: give request ids, or --subscription, --status, --since, --until, --event-type."
            )
        require_known(options["request_id"])
        require_sensible(selection)
        total, left_out = selection.queryset().count(), selection.left_out().count()
        remark = f" Left out: {left_out} of deleted subscriptions." if left_out else ""
        if options["dry_run"]:
            self.stdout.write(f"{total} request{pluralize(total)} would be replayed.{remark}")
            return
        replayed = operations.replay(
            selection,
            progress=lambda done: self.stderr.write(f"{done} of {total}"),
            actor=audit.command_actor(),
        )
        self.stdout.write(f"Replayed {replayed} request{pluralize(replayed)}.{remark}")
