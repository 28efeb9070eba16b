"""GET /metrics: who may read it, and that every figure is what really happened."""

import os
import re
import socket
from datetime import timedelta

import pytest
import yaml
from django.db import OperationalError, connection
from django.db.models.functions import Now
from prometheus_client.parser import text_string_to_metric_families

from deliveries import claims, figures, readiness, tasks
from deliveries.bulk import Operation
from deliveries.leases import MAX_LOST_IN_A_ROW
from deliveries.models import Heartbeat, WebhookRequest
from deliveries.outcome import ErrorClass
from deliveries.tallies import LAG_BOUNDS, RESPONSE_BOUNDS, Tally
from subscriptions.models import Subscription
from tests.documents import blocks, section
from tests.expected import REQUEST_ID, problem
from tests.receiver import Answer
from tests.service import BASE_DIR

pytestmark = pytest.mark.django_db

TOKEN = "a-token-of-the-tests-that-is-long-enough"
WORKER = f"{socket.gethostname()}:{os.getpid()}"


@pytest.fixture
def get(client, settings, monkeypatch):
    """Ask for /metrics, with the right token unless another header is given."""
    settings.METRICS_TOKEN = TOKEN
    # A busy machine is not to cut the connection that the test's transaction is on.
    monkeypatch.setattr(readiness, "ANSWER_SECONDS", 30)

    def get(authorization=f"Bearer {TOKEN}", method="get"):
        headers = {"Request-Id": REQUEST_ID}
        if authorization is not None:
            headers["Authorization"] = authorization
        return getattr(client, method)("/metrics", headers=headers)

    return get


@pytest.fixture
def scrape(get):
    """Return the value of every sample, by its name and its labels in order."""

    def scrape():
        answer = get()
        assert answer.status_code == 200
        return {
            ",".join(
                [sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))]
            ): sample.value
            for family in text_string_to_metric_families(answer.content.decode())
            for sample in family.samples
        }

    return scrape


@pytest.fixture
def work(fresh_worker, monkeypatch):
    """Deliver what is due, as a worker that has just started does, and tell with a heartbeat what came of it."""
    monkeypatch.setattr(tasks, "BEAT_SECONDS", 0.0)
    monkeypatch.setattr(tasks, "BEAT_DEADLINE_SECONDS", 30)

    def work():
        tasks.deliver_due()
        tasks.deliver_due()

    return work


def attempts(**counts):
    """Return the samples of a worker's attempts: none but those given."""
    by_outcome = dict.fromkeys(("delivered", *ErrorClass), 0) | counts
    return {
        f"webhooks_attempts_total,outcome={outcome},worker={WORKER}": count
        for outcome, count in by_outcome.items()
    }


def of(samples, *names):
    """Return the samples whose names begin so."""
    return {name: value for name, value in samples.items() if name.startswith(names)}


def test_it_tells_everything_about_an_idle_service(scrape):
    samples = scrape()
    # It counts what other tests have stored, too.
    assert samples.pop("webhooks_requests_accepted_total") >= 0
    assert samples == {
        "webhooks_oldest_due_seconds": 0,
        "webhooks_requests_in_flight": 0,
        "webhooks_requests_pending": 0,
        "webhooks_requests_failed": 0,
        "webhooks_subscriptions,status=active": 0,
        "webhooks_subscriptions,status=paused": 0,
        "webhooks_subscriptions,status=disabled": 0,
        "webhooks_subscriptions_circuit_open": 0,
        "webhooks_operations,status=pending": 0,
        "webhooks_operations,status=running": 0,
        "webhooks_operations_remaining_requests": 0,
        "webhooks_processes,kind=worker": 0,
        "webhooks_processes,kind=maintenance": 0,
        "webhooks_processes,kind=scheduler": 0,
        "webhooks_redis_up": 1,
    }


def test_it_tells_what_came_of_attempts(scrape, work, make_subscription, make_request, make_due, receiver):
    receiver.script = [Answer(status=500)]
    retried = make_request(make_subscription(receiver.url))
    make_request(make_subscription("http://127.0.0.1:9/"))
    work()
    assert of(scrape(), "webhooks_attempts") == attempts(http_5xx=1, blocked_address=1)
    make_due(retried)
    make_request(retried.subscription)
    work()
    samples = scrape()
    assert of(samples, "webhooks_attempts") == attempts(http_5xx=1, blocked_address=1, delivered=2)
    assert of(samples, "webhooks_processes", "webhooks_requests_in", "webhooks_requests_p") == {
        "webhooks_processes,kind=worker": 1,
        "webhooks_processes,kind=maintenance": 0,
        "webhooks_processes,kind=scheduler": 0,
        "webhooks_requests_in_flight": 0,
        "webhooks_requests_pending": 1,
    }
    # Whoever did not answer took no time, and only first attempts have a lag.
    assert samples[f"webhooks_response_seconds_count,worker={WORKER}"] == 3
    assert samples[f"webhooks_delivery_lag_seconds_count,worker={WORKER}"] == 2


def test_lag_is_from_receipt_to_the_first_answer(scrape, work, make_subscription, make_request, receiver):
    subscription = make_subscription(receiver.url)
    for minutes in (2, 20):
        make_request(subscription, received_at=Now() - timedelta(minutes=minutes))
    work()
    samples = of(scrape(), "webhooks_delivery_lag_seconds")
    buckets = {
        f"webhooks_delivery_lag_seconds_bucket,le={bound},worker={WORKER}": (bound > 120) + (bound > 1200)
        for bound in LAG_BOUNDS
    }
    assert 1320 <= samples.pop(f"webhooks_delivery_lag_seconds_sum,worker={WORKER}") < 1440
    assert samples == buckets | {
        f"webhooks_delivery_lag_seconds_bucket,le=+Inf,worker={WORKER}": 2,
        f"webhooks_delivery_lag_seconds_count,worker={WORKER}": 2,
    }


def test_response_time_is_that_of_the_call(scrape, work, make_subscription, make_request, receiver):
    make_request(make_subscription(receiver.url))
    work()
    seconds = WebhookRequest.objects.get().attempts.get().response_ms / 1000
    buckets = {
        f"webhooks_response_seconds_bucket,le={bound},worker={WORKER}": int(bound >= seconds)
        for bound in RESPONSE_BOUNDS
    }
    assert of(scrape(), "webhooks_response_seconds") == buckets | {
        f"webhooks_response_seconds_bucket,le=+Inf,worker={WORKER}": 1,
        f"webhooks_response_seconds_count,worker={WORKER}": 1,
        f"webhooks_response_seconds_sum,worker={WORKER}": seconds,
    }


def test_it_tells_that_workers_were_lost(scrape, work, make_subscription, make_request, make_due, receiver):
    request = make_request(make_subscription(receiver.url))
    claims.claim(1)
    assert scrape()["webhooks_requests_in_flight"] == 1
    make_due(request)
    assert scrape()["webhooks_requests_in_flight"] == 0
    work()
    samples = scrape()
    assert of(samples, "webhooks_attempts") == attempts(worker_lost=1, delivered=1)
    assert samples[f"webhooks_delivery_lag_seconds_count,worker={WORKER}"] == 0


def test_it_tells_of_the_lost_worker_with_which_a_request_fails(
    scrape, work, make_subscription, make_request, make_due
):
    request = make_request(make_subscription(), lost_count=MAX_LOST_IN_A_ROW - 1)
    claims.claim(1)
    make_due(request)
    work()
    assert of(scrape(), "webhooks_attempts") == attempts(worker_lost=1)
    request.refresh_from_db()
    assert request.status == "failed"


def test_it_tells_what_waits_and_what_failed(scrape, settle, make_subscription, make_request):
    for age, state in ((7, {}), (3600, {"status": "paused"}), (7200, {"circuit_opened_at": Now()})):
        subscription = make_subscription()
        make_request(subscription, next_attempt_at=Now() - timedelta(seconds=age))
        settle(make_request(subscription), "failed")
        settle(make_request(subscription))
        Subscription.objects.filter(id=subscription.id).update(**state)
    make_subscription(status="disabled").remove()
    make_subscription(status="disabled")
    samples = scrape()
    assert 7 <= samples.pop("webhooks_oldest_due_seconds") < 60
    assert of(samples, "webhooks_requests_in", "webhooks_requests_p", "webhooks_requests_f", "webhooks_sub") == {
        "webhooks_requests_in_flight": 0,
        "webhooks_requests_pending": 3,
        "webhooks_requests_failed": 3,
        "webhooks_subscriptions,status=active": 2,
        "webhooks_subscriptions,status=paused": 1,
        "webhooks_subscriptions,status=disabled": 1,
        "webhooks_subscriptions_circuit_open": 1,
    }


def test_it_stops_counting_where_it_says(scrape, make_subscription, make_request, monkeypatch):
    monkeypatch.setattr(figures, "MOST_REQUESTS", 2)
    monkeypatch.setattr(figures, "MOST_SUBSCRIPTIONS", 2)
    for _ in range(3):
        make_request(make_subscription())
    claims.claim(3)
    samples = scrape()
    assert of(samples, "webhooks_requests_in", "webhooks_requests_p", "webhooks_subscriptions,status=a") == {
        "webhooks_requests_in_flight": 2,
        "webhooks_requests_pending": 2,
        "webhooks_subscriptions,status=active": 2,
    }


def test_it_tells_what_operations_have_left(scrape):
    Operation.objects.create(kind="replay")
    Operation.objects.create(kind="replay", status="running", total=1000, done=300)
    Operation.objects.create(kind="recover", status="running", total=50)
    Operation.objects.create(kind="recover", status="done", total=10, done=4)
    assert of(scrape(), "webhooks_operations") == {
        "webhooks_operations,status=pending": 1,
        "webhooks_operations,status=running": 2,
        "webhooks_operations_remaining_requests": 750,
    }


def test_it_tells_of_processes_that_live_and_for_a_while_what_others_counted(scrape):
    counted = Tally().document()
    for kind, name, age in (
        ("worker", "a:1", 0),
        ("worker", "a:2", 19),
        ("worker", "b:1", 25),
        ("worker", "b:2", 700),
        ("scheduler", "b:3", 0),
    ):
        Heartbeat.objects.beat(kind, name, counted if kind == "worker" else None)
        Heartbeat.objects.filter(name=name).update(seen_at=Now() - timedelta(seconds=age))
    samples = scrape()
    assert of(samples, "webhooks_processes") == {
        "webhooks_processes,kind=worker": 2,
        "webhooks_processes,kind=maintenance": 0,
        "webhooks_processes,kind=scheduler": 1,
    }
    assert of(samples, "webhooks_response_seconds_count") == {
        f"webhooks_response_seconds_count,worker={name}": 0 for name in ("a:1", "a:2", "b:1")
    }


def test_it_tells_that_redis_does_not_answer(scrape, no_redis):
    assert scrape()["webhooks_redis_up"] == 0


@pytest.mark.django_db(transaction=True)
def test_what_is_accepted_is_counted_by_the_database(scrape, make_subscription, make_request):
    def accepted():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_force_next_flush()")
        return scrape()["webhooks_requests_accepted_total"]

    before = accepted()
    subscription = make_subscription()
    for _ in range(3):
        make_request(subscription)
    # Or more: the connection of another test may report late what it has stored.
    assert accepted() >= before + 3


@pytest.mark.django_db(transaction=True)
def test_it_asks_to_try_again_while_the_database_is_away(get, monkeypatch):
    with monkeypatch.context() as away:
        connection.close()
        away.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        away.setitem(connection.settings_dict, "PORT", 1)
        answer = get()
    assert (answer.status_code, answer["Retry-After"]) == (503, "2")
    detail = "The service cannot store anything right now. Try again."
    assert answer.json() == problem(503, "unavailable", detail)
    assert get().status_code == 200


@pytest.mark.django_db(transaction=True)
def test_it_outlives_a_restart_of_the_database(get):
    with connection.cursor() as cursor, pytest.raises(OperationalError):
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert get().status_code == 200


def test_it_asks_the_database_the_same_few_questions_however_much_there_is(
    get, make_subscription, make_request, django_assert_num_queries
):
    for number in range(3):
        make_request(make_subscription())
        Operation.objects.create(kind="replay")
        Heartbeat.objects.beat("worker", f"a:{number}", Tally().document())
    # Besides the one that GET /ready asks as well.
    with django_assert_num_queries(4):
        assert get().status_code == 200


def test_it_is_text_as_prometheus_reads_it(get):
    answer = get()
    assert answer["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    first = answer.content.decode().splitlines()[:3]
    assert first[0].startswith("# HELP webhooks_oldest_due_seconds How late the oldest webhook request is")
    assert first[1:] == ["# TYPE webhooks_oldest_due_seconds gauge", "webhooks_oldest_due_seconds 0.0"]


def test_the_guide_for_operators_names_every_metric_and_no_other(get):
    guide = section((BASE_DIR / "docs/operations.md").read_text(encoding="utf-8"), "Metrics")
    told = re.findall(r"^# TYPE (\w+) (\w+)$", get().content.decode(), re.MULTILINE)
    assert re.findall(r"^\| `(\w+)` \| (\w+) \|", guide, re.MULTILINE) == told
    named = {name.removesuffix("_bucket") for name in re.findall(r"\bwebhooks_\w+", guide)}
    assert named == {name for name, _ in told}
    scraping, alerting = (yaml.safe_load(block) for block in blocks(guide, "yaml"))
    assert [job["job_name"] for job in scraping["scrape_configs"]] == ["webhooks"]
    assert [sorted(rule) for rule in alerting["groups"][0]["rules"] if not {"alert", "expr"} <= rule.keys()] == []


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic Og==", TOKEN])
def test_it_is_closed_without_the_token(get, settings, debug, authorization):
    settings.DEBUG = debug
    answer = get(authorization)
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, 'Bearer realm="metrics"')
    assert answer["Content-Type"] == "application/problem+json"
    wanted = problem(401, "not_authenticated", "Authentication credentials were not provided.")
    if authorization == "Bearer":
        wanted = problem(401, "authentication_failed", "This is not the METRICS_TOKEN.")
    assert answer.json() == wanted


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\xe4" * 40])
def test_it_is_closed_with_a_wrong_token(get, token):
    answer = get(f"Bearer {token}")
    assert (answer.status_code, answer["WWW-Authenticate"]) == (401, 'Bearer realm="metrics"')
    assert answer.json() == problem(401, "authentication_failed", "This is not the METRICS_TOKEN.")


def test_an_api_key_does_not_open_it(get, client_with_key):
    answer = client_with_key.get("/metrics", headers={"Request-Id": REQUEST_ID})
    assert (answer.status_code, answer.json()["code"]) == (401, "authentication_failed")


def test_the_token_opens_nothing_else(get, client):
    answer = client.get("/subscriptions", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 401


@pytest.mark.parametrize("authorization", [None, f"Bearer {TOKEN}"])
def test_it_is_not_there_while_no_token_is_set(get, settings, authorization):
    settings.METRICS_TOKEN = None
    answer = get(authorization)
    assert answer.status_code == 404
    assert answer.json() == problem(404, "not_found", "There is no such thing here.")


def test_it_is_open_in_development_mode_while_no_token_is_set(get, settings):
    settings.METRICS_TOKEN, settings.DEBUG = None, True
    assert get(None).status_code == 200


def test_it_can_only_be_read(get):
    answer = get(method="post")
    assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD, OPTIONS")
