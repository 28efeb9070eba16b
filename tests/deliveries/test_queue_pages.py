"""RQ's own pages in the console: superusers look at them and act, everybody else is kept out."""

import gc
import json
import pickle
import time
import zlib
from pathlib import Path
from typing import Any

import django_rq
import pytest
import redis
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from deliveries import queue
from subscriptions.audit import AuditEntry

# RQ's pages leave their connections to Redis to the garbage collector.
pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.usefixtures("patient_redis"),
]

HOME = "/admin/rq/"
VERBS = ("delete", "requeue", "enqueue", "stop")
PLACES = ("", "finished/", "failed/", "scheduled/", "started/", "deferred/", "details/", "empty/", "requeue-all/")
PAGES = [
    HOME,
    *(f"{HOME}queues/{number}/{place}" for number in (0, 1) for place in PLACES),
    *(f"{HOME}workers/{number}/" for number in (0, 1)),
    f"{HOME}schedulers/0/",
    f"{HOME}stats.json",
    f"{HOME}metrics",
]


@pytest.fixture(autouse=True)
def _collected():
    """Have what the pages left collected here, and not within some other test."""
    yield
    gc.collect()


def client_of(role: str, **options: Any) -> Client:
    user = User.objects.create_user(f"the {role}", is_staff=True, is_superuser=role == "superuser")
    user.groups.set(Group.objects.filter(name=role))
    client = Client(**options)
    client.force_login(user)
    return client


@pytest.mark.parametrize("page", PAGES)
def test_a_superuser_opens_each_page(page):
    queue.push_wake_up()
    answer = client_of("superuser").get(page)
    assert answer.status_code == 200
    assert "Content-Security-Policy" in answer.headers


def test_a_superuser_sees_a_wake_up_that_waits():
    queue.push_wake_up()
    client = client_of("superuser")
    [job_id] = django_rq.get_queue("deliveries").get_job_ids()
    assert job_id in client.get(f"{HOME}queues/0/").content.decode()
    page = client.get(f"{HOME}queues/0/{job_id}/").content.decode()
    assert "deliveries.tasks" in page


@pytest.mark.parametrize("role", ["Viewer", "Operator", "Admin", "nobody in particular"])
def test_nobody_else_on_the_staff_opens_any(role):
    queue.push_wake_up()
    client = client_of(role)
    urls = [*PAGES, f"{HOME}queues/actions/0/", f"{HOME}queues/confirm-action/0/"]
    assert {answer.status_code for url in urls for answer in (client.get(url), client.post(url))} == {403}
    assert django_rq.get_queue("deliveries").count == 1


@pytest.mark.parametrize("page", PAGES)
def test_it_asks_who_is_not_logged_in_to_log_in(page):
    answer = Client().get(page)
    assert (answer.status_code, answer["Location"]) == (302, f"/admin/login/?next={page}")


def test_only_superusers_are_shown_the_way_there():
    link = f'href="{HOME}"'
    assert link in client_of("superuser").get("/admin/").content.decode()
    assert link not in client_of("Admin").get("/admin/").content.decode()


def test_what_a_superuser_does_to_a_queue_is_in_the_audit_log():
    queue.push_wake_up()
    client = client_of("superuser")
    answer = client.post(f"{HOME}queues/0/empty/")
    assert (answer.status_code, answer["Location"]) == (302, f"{HOME}queues/0/")
    assert django_rq.get_queue("deliveries").count == 0
    entry = AuditEntry.objects.values("actor", "action", "object_kind", "object_id").latest("id")
    assert entry == {
        "actor": "the superuser",
        "action": "change queue",
        "object_kind": "queue",
        "object_id": "queues/0/empty/",
    }
    log = reverse("admin:subscriptions_auditentry_changelist")
    page = client.get(log, {"kind": "queue"}).content.decode()
    assert "queues/0/empty/" in page
    assert "?kind=queue" in client.get(log).content.decode()


def test_it_refuses_a_form_from_elsewhere():
    queue.push_wake_up()
    assert client_of("superuser", enforce_csrf_checks=True).post(f"{HOME}queues/0/empty/").status_code == 403
    assert django_rq.get_queue("deliveries").count == 1


def test_it_says_so_when_redis_is_away(settings):
    away = {name: options | {"URL": "redis://127.0.0.1:1/0"} for name, options in settings.RQ_QUEUES.items()}
    settings.RQ_QUEUES = away
    answer = client_of("superuser").get(HOME, follow=True)
    assert answer.redirect_chain == [(reverse("admin:index"), 302)]
    assert "Redis does not answer." in answer.content.decode()


class Touch:
    """What makes a file wherever it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def touch(job: Any, *args: Any) -> None:
    """What a job in Redis may name to be called back when it fails."""
    Path(job.description).touch()


@pytest.fixture
def hostile_job(settings, tmp_path):
    """Have a job, a worker at it and entries in RQ's registries, as whoever can write to Redis may put them."""
    canary = tmp_path / "canary"
    moment = "2026-11-24T13:00:00.000000Z"
    work = json.dumps([queue.DELIVER_DUE, None, [], {}]).encode()
    job = {
        "created_at": moment,
        "enqueued_at": moment,
        "origin": queue.DELIVERIES,
        "data": zlib.compress(work),
        "status": "started",
        "timeout": "180",
        "meta": pickle.dumps(Touch(canary)),
        "failure_callback_name": f"{__name__}.touch",
        "description": str(canary),
    }
    worker = {"birth": moment, "last_heartbeat": moment, "queues": queue.DELIVERIES, "current_job": "hostile"}
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.hset("rq:job:hostile", mapping=job)
        client.hset("rq:worker:hostile", mapping=worker)
        client.sadd("rq:workers", "rq:worker:hostile")
        client.sadd("rq:workers:deliveries", "rq:worker:hostile")
        client.zadd("rq:wip:deliveries", {"hostile:execution": time.time() - 60})
        client.zadd("rq:failed:deliveries", {"hostile": time.time() + 60})
        client.zadd("rq:scheduler:scheduled_jobs", {"hostile": time.time() + 60})
    return canary


@pytest.mark.parametrize("page", [*PAGES, f"{HOME}queues/0/hostile/", f"{HOME}workers/0/rq:worker:hostile/"])
def test_no_page_runs_what_somebody_put_into_redis(hostile_job, page):
    answer = client_of("superuser").get(page)
    assert answer.status_code == 200
    assert not hostile_job.exists()


@pytest.mark.parametrize(
    "action", ["failed/clear/", "requeue-all/", "hostile/delete/", "hostile/requeue/", "hostile/stop/"]
)
def test_no_action_runs_what_somebody_put_into_redis(hostile_job, action):
    answer = client_of("superuser").post(f"{HOME}queues/0/{action}")
    assert answer.status_code == 302
    assert not hostile_job.exists()


GONE = [
    *(f"{HOME}queues/0/{place}/" for place in ("gone/delete", "gone/requeue", "gone/enqueue", "*", "%00")),
    *(
        f"{HOME}{place}/"
        for place in ("queues/7", f"queues/{10**25}", "workers/7", "workers/0/gone", "schedulers/7")
    ),
    *(f"{HOME}queues/{place}/7/" for place in ("actions", "confirm-action")),
]


@pytest.mark.parametrize("page", GONE)
def test_it_says_so_when_a_job_or_worker_is_gone(page):
    client = client_of("superuser")
    for call in (client.get, client.post):
        answer = call(page, follow=True)
        assert (answer.status_code, answer.redirect_chain) == (200, [(reverse("django_rq:home"), 302)])
        assert "There is no such thing in Redis, or no longer." in answer.content.decode()


def test_it_leads_elsewhere_when_the_first_page_cannot_be_shown(settings):
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.rpush("rq:queue:deliveries", "no id")
    answer = client_of("superuser").get(HOME, follow=True)
    assert (answer.status_code, answer.redirect_chain) == (200, [(reverse("admin:index"), 302)])


def test_what_was_done_before_a_job_was_found_gone_is_in_the_audit_log():
    queue.push_wake_up()
    [job_id] = django_rq.get_queue("deliveries").get_job_ids()
    client_of("superuser").post(f"{HOME}queues/actions/0/", {"action": "delete", "job_ids": [job_id, "gone"]})
    assert django_rq.get_queue("deliveries").count == 0
    assert AuditEntry.objects.latest("id").object_id == "queues/actions/0/"


def test_the_figures_of_one_name_do_not_spoil_the_page():
    client = client_of("superuser")
    for query in ("?name[]=rq_jobs", "?name[]=rq_workers", ""):
        assert client.get(f"{HOME}metrics{query}").status_code == 200


@pytest.fixture
def treacherous_job(settings):
    """Have a job, a worker and an exception in Redis whose texts hide, reorder and would run."""
    text = "\u202e<script>alert(1)</script>\x1b[2Jjavascript:alert(1)\u200b"
    moment = "2026-11-24T13:00:00.000000Z"
    job = {
        "created_at": moment,
        "enqueued_at": moment,
        "origin": queue.DELIVERIES,
        "data": json.dumps([text, None, [text], {text: text}]),
        "status": "failed",
        "meta": json.dumps({text: text}),
        "exc_info": text,
        "description": text,
        "worker_name": text,
    }
    worker = {
        "birth": moment,
        "last_heartbeat": moment,
        "queues": queue.DELIVERIES,
        "hostname": text,
        "state": text,
    }
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.hset("rq:job:treacherous", mapping=job)
        client.hset("rq:worker:treacherous", mapping=worker)
        client.sadd("rq:workers", "rq:worker:treacherous")
        client.sadd("rq:workers:deliveries", "rq:worker:treacherous")
        client.rpush("rq:queue:deliveries", "treacherous")
        client.zadd("rq:failed:deliveries", {"treacherous": time.time() + 60})


@pytest.mark.parametrize(
    "page",
    [
        f"{HOME}queues/0/",
        f"{HOME}queues/0/failed/",
        f"{HOME}queues/0/treacherous/",
        f"{HOME}workers/0/",
        f"{HOME}workers/0/rq:worker:treacherous/",
    ],
)
def test_what_hides_or_reorders_text_is_visible_on_each_page(treacherous_job, page):
    answer = client_of("superuser").get(page)
    assert answer.status_code == 200
    text = answer.content.decode()
    assert r"\u202e&lt;script&gt;alert(1)&lt;/script&gt;\u001b[2J" in text
    assert not {"\u202e", "\x1b", "\u200b"} & set(text)
    assert "<script>alert" not in text
    assert 'href="javascript:' not in text


def test_a_form_leads_nowhere_else():
    client = client_of("superuser")
    for elsewhere in (
        "https://example.com/",
        "//example.com/",
        "http:example.com",
        "javascript:alert(1)",
    ):
        answer = client.post(f"{HOME}queues/actions/0/", {"next_url": elsewhere})
        assert (answer.status_code, answer["Location"]) == (302, HOME)
        answer = client.get(f"{HOME}queues/confirm-action/0/", headers={"referer": elsewhere})
        assert (answer.status_code, answer["Location"]) == (302, HOME)
    answer = client.post(f"{HOME}queues/actions/0/", {"next_url": f"{HOME}queues/1/"})
    assert (answer.status_code, answer["Location"]) == (302, f"{HOME}queues/1/")
    answer = client.get(
        f"{HOME}queues/confirm-action/0/", headers={"referer": f"http://testserver{HOME}queues/1/"}
    )
    assert (answer.status_code, answer["Location"]) == (302, f"http://testserver{HOME}queues/1/")


@pytest.mark.parametrize("page", ["schedulers/0/", "queues/0/another/", "queues/0/started/", "queues/0/hostile/"])
def test_it_leads_elsewhere_when_a_page_stumbles_over_what_somebody_wrote(settings, hostile_job, page):
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.zadd("rq:scheduler:scheduled_jobs", {"hostile": 1e18})
        client.zadd("rq:wip:deliveries", {"gone:execution": time.time() + 60})
        client.xadd("rq:results:hostile", {"type": 2, "exc_string": "bm90IGRlZmxhdGVk"})
        client.hset("rq:job:another", mapping={"data": "x", "dependency_ids": "7"})
    answer = client_of("superuser").get(f"{HOME}{page}", follow=True)
    assert (answer.status_code, answer.redirect_chain) == (200, [(reverse("django_rq:home"), 302)])
