"""What a worker counts reaches whoever asks a web process."""

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.receiver import Answer
from tests.waiting import wait_until

pytestmark = pytest.mark.processes


def test_a_web_process_tells_what_the_workers_have_delivered(running, subscribe, ingest, receiver):
    running.start("web")
    names = {f":{running.start('worker').pid}" for _ in range(2)}
    receiver.script = [Answer(status=503)]
    subscription_id = subscribe(receiver.url)
    for _ in range(4):
        ingest(subscription_id)

    def attempts() -> dict[str, float]:
        """Return the attempts of these workers, by outcome."""
        text = requests.get(f"{running.url}/metrics", timeout=10).text
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "webhooks_attempts_total" and sample.labels["worker"].endswith(tuple(names)):
                    outcome = sample.labels["outcome"]
                    found[outcome] = found.get(outcome, 0) + sample.value
        return {outcome: count for outcome, count in found.items() if count}

    wait_until(attempts, lambda told: told == {"delivered": 3, "http_5xx": 1}, running.logs)
