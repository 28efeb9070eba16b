"""GET /ready: one line per part."""

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now

from deliveries import tasks
from deliveries.models import Heartbeat
from subscriptions.models import Subscription

pytestmark = pytest.mark.django_db

NOT_HEARD = "none has been heard of for 20 seconds"


@pytest.fixture
def alive():
    for kind in Heartbeat.Kind:
        Heartbeat.objects.beat(kind, f"somewhere:{kind}")


def test_it_is_ready_when_every_part_is(client, alive):
    answer = client.get("/ready")
    assert answer.status_code == 200
    assert answer.json() == {
        "database": "ok",
        "redis": "ok",
        "workers": "ok",
        "maintenance": "ok",
        "scheduler": "ok",
        "oldest_due_seconds": None,
    }


def test_it_tells_which_processes_have_not_been_heard_of(client, alive):
    Heartbeat.objects.filter(kind="scheduler").update(seen_at=Now() - timedelta(seconds=21))
    Heartbeat.objects.filter(kind="worker").delete()
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert answer.json() == {
        "database": "ok",
        "redis": "ok",
        "workers": NOT_HEARD,
        "maintenance": "ok",
        "scheduler": NOT_HEARD,
        "oldest_due_seconds": None,
    }


def test_it_tells_that_redis_does_not_answer(client, alive, no_redis):
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert answer.json() == {
        "database": "ok",
        "redis": "does not answer",
        "workers": "ok",
        "maintenance": "ok",
        "scheduler": "ok",
        "oldest_due_seconds": None,
    }


@pytest.mark.django_db(transaction=True)
def test_it_tells_that_the_database_does_not_answer(client, monkeypatch):
    with monkeypatch.context() as away:
        connection.close()
        away.setitem(connection.settings_dict, "HOST", "127.0.0.1")
        away.setitem(connection.settings_dict, "PORT", 1)
        answer = client.get("/ready")
    unknown = "unknown: the database does not answer"
    assert answer.status_code == 503
    assert answer.json() == {
        "database": "does not answer",
        "redis": "ok",
        "workers": unknown,
        "maintenance": unknown,
        "scheduler": unknown,
        "oldest_due_seconds": None,
    }


def test_it_tells_the_age_of_the_oldest_request_that_could_be_tried(
    client, alive, make_subscription, make_request
):
    for age, state in ((7, {}), (3600, {"status": "paused"}), (7200, {"circuit_opened_at": Now()})):
        subscription = make_subscription()
        make_request(subscription, next_attempt_at=Now() - timedelta(seconds=age))
        make_request(subscription)
        Subscription.objects.filter(id=subscription.id).update(**state)
    assert 7 <= client.get("/ready").json()["oldest_due_seconds"] < 3600


def test_processes_beat_and_are_forgotten_after_a_day(monkeypatch):
    monkeypatch.setattr(tasks, "BEAT_SECONDS", 0.0)
    for beat in (tasks.beat_maintenance, tasks.beat_scheduler):
        beat()
        beat()
    assert Heartbeat.objects.count() == 1  # one row for one process, whatever it does
    Heartbeat.objects.update(seen_at=Now() - timedelta(days=2))
    tasks.purge()
    assert not Heartbeat.objects.exists()


def test_the_maintenance_beats_while_it_cancels_what_a_deleted_subscription_left(
    make_subscription, make_request, fresh_worker
):
    subscription = make_subscription()
    make_request(subscription)
    subscription.remove()
    assert tasks.cancel_orphans() == 1
    assert [beat.kind for beat in Heartbeat.objects.all()] == ["maintenance"]
