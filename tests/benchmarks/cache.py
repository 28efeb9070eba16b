"""The cached look-up of a subscription against the query: run by the benchmark, on its own database."""

import statistics
import time
from collections.abc import Callable

import django

django.setup()

from rest_framework.test import APIRequestFactory  # noqa: E402 - the apps have to be loaded first

from subscriptions import cache  # noqa: E402
from subscriptions.models import Subscription  # noqa: E402
from subscriptions.views import SubscriptionView  # noqa: E402

CALLS = 2_000


def main() -> None:
    subscription_id = Subscription.objects.values_list("id", flat=True)[0]
    view, request = SubscriptionView.as_view(), APIRequestFactory().get("/")
    compare("look-up", lambda: Subscription.objects.cached(subscription_id))
    compare("whole view", lambda: view(request, subscription_id=subscription_id).render())


def compare(name: str, action: Callable[[], object]) -> None:
    queried, cached = microseconds_of(action, forget=True), microseconds_of(action, forget=False)
    print(
        f"cache           {name}: {queried:.0f} µs queried, {cached:.1f} µs cached, {queried / cached:.1f} times"
    )


def microseconds_of(action: Callable[[], object], *, forget: bool) -> float:
    times = []
    for _ in range(CALLS):
        if forget:
            cache.clear()
        started_at = time.perf_counter()
        action()
        times.append(time.perf_counter() - started_at)
    return statistics.median(times) * 1e6


if __name__ == "__main__":
    main()
