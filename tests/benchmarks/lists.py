"""How long the lists of requests take with 1,000,000 of them: run by the benchmark, on its own database."""

import time
from datetime import timedelta
from typing import Any

import django
from django.utils import timezone

django.setup()

from deliveries.models import WebhookRequest  # noqa: E402 - the apps have to be loaded first
from deliveries.request_views import narrow  # noqa: E402
from subscriptions.models import Subscription  # noqa: E402
from tests import history  # noqa: E402

COUNT = 1_000_000


def main() -> None:
    history.fill(COUNT, size=300)
    subscription = Subscription.objects.get(tenant="small")
    of_one, day_ago = {"subscription": subscription.id}, timezone.now() - timedelta(days=1)
    show("all", {})
    show("of a subscription", of_one)
    show("of a tenant", {"tenant": "small"})
    show("failed", {"status": "failed"})
    show("failed, of a subscription", of_one | {"status": "failed"})
    show("with an error", {"error": "timeout"})
    show("pending", {"status": "pending"})
    show("of an event type of 1 in 20", {"event_type": "event.type3"})
    show("of an event type of 1 in 10,000", {"event_type": "rare.event"})
    show("the same, of the past day", {"event_type": "rare.event", "received_after": day_ago})
    show("of an event type that there is none of", {"event_type": "never"})


def show(which: str, filters: dict[str, Any]) -> None:
    """Print what a list's first page takes, cold and warm."""
    times = []
    for _ in range(3):
        queryset = narrow(WebhookRequest.objects.defer("payload").with_standing(), filters)
        started_at = time.perf_counter()
        found = len(queryset.order_by("-id")[:51])
        times.append((time.perf_counter() - started_at) * 1000)
    print(f"lists           {which}: {times[0]:.1f} ms, then {min(times):.1f} ms; {found} rows")


if __name__ == "__main__":
    main()
