"""The figures of the service in Prometheus' text format: the only module that knows prometheus_client."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from deliveries import readiness
from deliveries.figures import MOST_REQUESTS, MOST_SUBSCRIPTIONS, Figures, ProcessFigures

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

STOPS = f"Counting stops at {MOST_REQUESTS}, which means so many or more."
COUNTED_BY_WORKER = "Counted by each worker since it started, and told with its heartbeat, every few seconds."


def text_of(figures: Figures) -> bytes:
    """Return the figures as Prometheus reads them."""
    return generate_latest(_Exposition(figures))


class _Exposition(Collector):
    """One scrape. The service's own state lives in the database: there is nothing to register."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        yield from _requests(self._figures)
        yield from _subscriptions(self._figures)
        yield from _operations(self._figures)
        yield from _parts(self._figures)
        yield from _attempts(self._figures.processes)


def _requests(figures: Figures) -> Iterator[Metric]:
    requests = figures.requests
    yield GaugeMetricFamily(
        "webhooks_oldest_due_seconds",
        "How late the oldest webhook request is that may be sent now and that nothing holds, as far as one claim "
        "looks; 0 if none is late.",
        value=figures.oldest_due_seconds,
    )
    yield GaugeMetricFamily(
        "webhooks_requests_in_flight",
        f"Webhook requests that a worker has under an unexpired lease. {STOPS}",
        value=requests.in_flight,
    )
    yield GaugeMetricFamily(
        "webhooks_requests_pending",
        f"Webhook requests that are not settled: due, in flight, held or waiting for a retry. {STOPS}",
        value=requests.pending,
    )
    yield GaugeMetricFamily(
        "webhooks_requests_failed",
        f"Webhook requests that have failed for good and wait for a replay or the purge. {STOPS}",
        value=requests.failed,
    )
    yield CounterMetricFamily(
        "webhooks_requests_accepted",
        "Webhook requests stored, by the statistics of PostgreSQL: with those skipped and those rolled back, and "
        "from 0 again when the statistics are reset, as after a crash of PostgreSQL.",
        value=requests.inserted,
    )


def _subscriptions(figures: Figures) -> Iterator[Metric]:
    newest = f"Of more than {MOST_SUBSCRIPTIONS} the newest are counted."
    yield _gauge_by(
        "status",
        "webhooks_subscriptions",
        f"Subscriptions by status. {newest}",
        figures.subscriptions.by_status,
    )
    yield GaugeMetricFamily(
        "webhooks_subscriptions_circuit_open",
        f"Subscriptions whose circuit is open or half-open. {newest}",
        value=figures.subscriptions.with_open_circuit,
    )


def _operations(figures: Figures) -> Iterator[Metric]:
    yield _gauge_by(
        "status",
        "webhooks_operations",
        "Recovers and bulk replays that are not over, by status.",
        figures.operations.by_status,
    )
    yield GaugeMetricFamily(
        "webhooks_operations_remaining_requests",
        "Webhook requests that these have selected and not brought back yet.",
        value=figures.operations.remaining,
    )


def _parts(figures: Figures) -> Iterator[Metric]:
    yield _gauge_by(
        "kind",
        "webhooks_processes",
        f"Processes by kind that have been heard of within {readiness.STALE_AFTER.seconds} seconds.",
        figures.processes.by_kind,
    )
    yield GaugeMetricFamily(
        "webhooks_redis_up",
        "Whether Redis answers the web process that is asked: 1 or 0.",
        value=figures.is_redis_there,
    )


def _gauge_by(label: str, name: str, meaning: str, counts: Mapping[str, int]) -> Metric:
    gauge = GaugeMetricFamily(name, meaning, labels=[label])
    for value, count in counts.items():
        gauge.add_metric([value], count)
    return gauge


def _attempts(processes: ProcessFigures) -> Iterator[Metric]:
    attempts = CounterMetricFamily(
        "webhooks_attempts",
        f"Attempts by outcome: delivered, or the class of the error. {COUNTED_BY_WORKER}",
        labels=["worker", "outcome"],
    )
    response = HistogramMetricFamily(
        "webhooks_response_seconds",
        f"How long receivers took that answered, whatever they answered. {COUNTED_BY_WORKER}",
        labels=["worker"],
    )
    lag = HistogramMetricFamily(
        "webhooks_delivery_lag_seconds",
        "From the receipt of a webhook request to the answer to its first attempt, whatever it was. "
        f"{COUNTED_BY_WORKER}",
        labels=["worker"],
    )
    for worker, counts in processes.counts.items():
        for outcome, count in counts["attempts"].items():
            attempts.add_metric([worker, outcome], count)
        for family in (response, lag):
            histogram = counts[family.name.removeprefix("webhooks_")]
            family.add_metric([worker], histogram["buckets"], histogram["sum"])
    yield from (attempts, response, lag)
