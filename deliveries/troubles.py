"""Tell people of subscriptions that fail, before they are disabled for it and when they are.

Each is told of in the log, and by mail if somebody is to get it: first after a day of nothing
but failures, or a fifth of the time after which it is disabled, then daily, and once it is
disabled. One success, or enabling it again, and it all begins anew.
"""

import json
import logging
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from deliveries import mail
from subscriptions.models import Subscription
from subscriptions.visible import visible

logger = logging.getLogger(__name__)

DAY = timedelta(days=1)

# Told of at once; the others come with the next look. A mail names only the first of them.
MOST_TOLD = 500
MOST_IN_A_MAIL = 50

HOW_TO_PREVENT = (
    "One successful delivery prevents it, and so does pausing the subscription while its receiver is mended. "
    "POST /subscriptions/{id}/test tells what the receiver answers."
)
HOW_TO_ENABLE = (
    "When its receiver is mended, enable it with POST /subscriptions/{id}/enable or in the admin. What is pending "
    "goes out then; what it missed meanwhile is delivered by POST /subscriptions/{id}/recover."
)


def tell() -> int:
    """Tell of every subscription of which it is time to tell; return how many.

    Each is told of once, however many processes do this at the same time.
    """
    told = _take()
    for subscription in told:
        _log(subscription)
    if told:
        _mail(told)
    return len(told)


def _take() -> list[Subscription]:
    """Note of those in trouble that people are told of them now, and return them."""
    with transaction.atomic():
        found = _in_trouble().select_for_update(skip_locked=True, no_key=True)
        told = list(found.order_by("id")[:MOST_TOLD])
        Subscription.objects.filter(id__in=[subscription.id for subscription in told]).update(warned_at=Now())
    return told


def _in_trouble() -> QuerySet[Subscription]:
    """Return those of which it is time to tell; what was told before the last success does not count."""
    disable_after = timedelta(seconds=settings.DISABLE_AFTER_SECONDS)
    is_failing = Q(
        status=Subscription.Status.ACTIVE,
        failing_since__lte=Now() - min(DAY, disable_after / 5),
        failing_since__gt=Now() - disable_after,
    )
    is_warned = Q(warned_at__gte=F("failing_since"), warned_at__gt=Now() - DAY)
    was_disabled = Q(status=Subscription.Status.DISABLED, given_up_at__isnull=False)
    is_told = Q(warned_at__gte=F("given_up_at"))
    return (
        Subscription.objects.existing()
        .filter(Q(failing_since__isnull=False) | Q(given_up_at__isnull=False))
        .filter((is_failing & ~is_warned) | (was_disabled & ~is_told))
        .only("id", "tenant", "target_url", "status", "status_reason", "failing_since")
    )


def _log(subscription: Subscription) -> None:
    facts: dict[str, str | None] = {
        "subscription_id": str(subscription.id),
        "tenant": visible(subscription.tenant),
        "failing_since": _shown_time(subscription.failing_since),
    }
    if subscription.is_disabled:
        facts |= {"reason": subscription.status_reason, "advice": HOW_TO_ENABLE}
        logger.warning("a subscription was disabled", extra=facts)
        return
    facts |= {"disable_at": _shown_time(subscription.disable_at), "advice": HOW_TO_PREVENT}
    logger.warning("a subscription only fails and will be disabled", extra=facts)


def _mail(told: list[Subscription]) -> None:
    disabled = [subscription for subscription in told if subscription.is_disabled]
    failing = [subscription for subscription in told if not subscription.is_disabled]
    parts = [
        *_part("Disabled:", disabled, HOW_TO_ENABLE),
        *_part("Nothing but failures, and about to be disabled:", failing, HOW_TO_PREVENT),
    ]
    mail.send(f"Subscriptions: {len(disabled)} disabled, {len(failing)} failing", "\n\n".join(parts))


def _part(title: str, subscriptions: list[Subscription], advice: str) -> list[str]:
    if not subscriptions:
        return []
    named = [title, *map(_described, subscriptions[:MOST_IN_A_MAIL])]
    more = len(subscriptions) - MOST_IN_A_MAIL
    return [*named, *([f"And {more} more, which the log names."] if more > 0 else []), advice]


def _described(subscription: Subscription) -> str:
    what = (
        subscription.status_reason
        if subscription.is_disabled
        else f"Nothing but failures since {_shown_time(subscription.failing_since)}; "
        f"the first failure after {_shown_time(subscription.disable_at)} disables it."
    )
    lines = [
        f"- {subscription.id}",
        f"  tenant {_quoted(subscription.tenant)}, receiver {_quoted(_host_of(subscription))}",
        f"  {what}",
        f"  /admin/subscriptions/subscription/{subscription.id}/change/",
    ]
    return "\n".join(lines)


def _host_of(subscription: Subscription) -> str:
    """Return whom a subscription calls: paths and queries of URLs may have secrets in them."""
    return urlsplit(subscription.target_url).netloc


def _quoted(text: str) -> str:
    """Return a stranger's text in one line that can be taken for nothing else."""
    return visible(json.dumps(text, ensure_ascii=False))


def _shown_time(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
