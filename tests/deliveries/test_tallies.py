"""What a worker counts: histograms as Prometheus has them. Attempts are counted in test_metrics.py."""

import json
import re

import pytest

from deliveries import tallies
from deliveries.models import Heartbeat
from deliveries.tallies import Histogram, Tally


def test_a_histogram_counts_what_is_not_above_each_bound():
    histogram = Histogram((0.5, 1.0, 2.5))
    histogram.note([0.0, 0.5, 0.75, 1.0, 2.0])
    histogram.note([3.0, 4.0])
    assert histogram.document() == {"buckets": [("0.5", 2), ("1.0", 4), ("2.5", 5), ("+Inf", 7)], "sum": 11.25}


@pytest.mark.parametrize("bounds", [tallies.RESPONSE_BOUNDS, tallies.LAG_BOUNDS])
def test_the_bounds_rise_and_look_as_prometheus_writes_them(bounds):
    assert list(bounds) == sorted(set(bounds))
    assert all(re.fullmatch(r"\d+\.\d+", str(bound)) for bound in bounds)


@pytest.mark.django_db
def test_a_heartbeat_carries_it_unchanged():
    counted = Tally().document()
    Heartbeat.objects.beat("worker", "a:1", counted)
    assert Heartbeat.objects.get().counts == json.loads(json.dumps(counted))
    Heartbeat.objects.beat("maintenance", "a:1")
    assert Heartbeat.objects.get().counts is None
