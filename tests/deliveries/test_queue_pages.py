"""RQ's own pages in the console: superusers look at them and act, everybody else is kept out."""

from typing import Any

import django_rq
import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import reverse

from deliveries import queue
from subscriptions.audit import AuditEntry

pytestmark = pytest.mark.django_db

HOME = "/admin/rq/"
PLACES = ("", "finished/", "failed/", "scheduled/", "started/", "deferred/", "details/", "empty/", "requeue-all/")
PAGES = [
    HOME,
    *(f"{HOME}queues/{number}/{place}" for number in (0, 1) for place in PLACES),
    *(f"{HOME}workers/{number}/" for number in (0, 1)),
    f"{HOME}schedulers/0/",
    f"{HOME}stats.json",
    f"{HOME}metrics",
]


def client_of(role: str, **options: Any) -> Client:
    user = User.objects.create_user(f"the {role}", is_staff=True, is_superuser=role == "superuser")
    user.groups.set(Group.objects.filter(name=role))
    client = Client(**options)
    client.force_login(user)
    return client


@pytest.mark.parametrize("page", PAGES)
def test_a_superuser_opens_each_page(page):
    queue.wake_up()
    answer = client_of("superuser").get(page)
    assert answer.status_code == 200
    assert "Content-Security-Policy" in answer.headers


def test_a_superuser_sees_a_wake_up_that_waits():
    queue.wake_up()
    client = client_of("superuser")
    [job_id] = django_rq.get_queue("deliveries").get_job_ids()
    assert job_id in client.get(f"{HOME}queues/0/").content.decode()
    page = client.get(f"{HOME}queues/0/{job_id}/").content.decode()
    assert "deliveries.tasks" in page


@pytest.mark.parametrize("role", ["Viewer", "Operator", "Admin", "nobody in particular"])
def test_nobody_else_on_the_staff_opens_any(role):
    queue.wake_up()
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
    queue.wake_up()
    answer = client_of("superuser").post(f"{HOME}queues/0/empty/")
    assert (answer.status_code, answer["Location"]) == (302, f"{HOME}queues/0/")
    assert django_rq.get_queue("deliveries").count == 0
    entry = AuditEntry.objects.values("actor", "action", "object_kind", "object_id").latest("id")
    assert entry == {
        "actor": "the superuser",
        "action": "change_queue",
        "object_kind": "queue",
        "object_id": "queues/0/empty/",
    }


def test_it_refuses_a_form_from_elsewhere():
    queue.wake_up()
    assert client_of("superuser", enforce_csrf_checks=True).post(f"{HOME}queues/0/empty/").status_code == 403
    assert django_rq.get_queue("deliveries").count == 1


def test_it_says_so_when_redis_is_away(settings):
    away = {name: options | {"URL": "redis://127.0.0.1:1/0"} for name, options in settings.RQ_QUEUES.items()}
    settings.RQ_QUEUES = away
    answer = client_of("superuser").get(HOME, follow=True)
    assert answer.redirect_chain == [(reverse("admin:index"), 302)]
    assert "Redis does not answer." in answer.content.decode()
