"""What another site has the browser of somebody send who is logged in (CSRF): nothing comes of it."""

import logging

import pytest
from django.contrib.auth.models import User
from django.test import Client

from subscriptions.audit import AuditEntry
from tests.security.test_access import ids as ids
from tests.security.test_access import operations, with_ids

pytestmark = pytest.mark.django_db

EVIL = "https://evil.example.com"
FORMS = ("application/x-www-form-urlencoded", "text/plain", "application/json")


@pytest.fixture
def browser() -> Client:
    """The browser of a superuser who is logged in, at a page of another site."""
    client = Client(enforce_csrf_checks=True, headers={"origin": EVIL, "referer": f"{EVIL}/page"})
    client.force_login(User.objects.create_superuser("ada"))
    return client


@pytest.mark.parametrize("content_type", FORMS)
def test_a_login_of_the_console_is_no_key_of_the_api(browser, ids, content_type):
    recorded = AuditEntry.objects.count()
    for method, path in operations():
        answer = browser.generic(method, with_ids(path, ids), b"{}", content_type)
        assert answer.status_code == 401, (method, path)
    assert AuditEntry.objects.count() == recorded


def test_the_console_refuses_the_form(browser, make_subscription):
    subscription = make_subscription()
    fields = {"action": "disable", "_selected_action": str(subscription.id), "username": "eve", "step": "remove"}
    for path in (
        "/admin/subscriptions/subscription/",
        f"/admin/subscriptions/subscription/{subscription.id}/change/",
        "/admin/auth/user/add/",
        "/admin/one-time-code/",
        "/admin/rq/queues/0/empty/",
        "/admin/logout/",
    ):
        assert browser.post(path, fields).status_code == 403, path
    subscription.refresh_from_db()
    assert (subscription.status, User.objects.count()) == ("active", 1)


@pytest.mark.parametrize(
    ("path", "status"), [("/nothing", 404), ("/docs", 405), ("/redoc", 405), ("/openapi.json", 405)]
)
def test_what_does_nothing_refuses_it_with_a_problem(browser, path, status):
    answer = browser.post(path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")


def test_the_log_tells_its_origin_and_little_more(browser, caplog):
    browser.post("/admin/logout/", headers={"origin": f"{EVIL}\x1b[2J"})
    browser.post(f"/admin/logout/?{'a' * 5_000}", headers={"origin": f"{EVIL}/{'b' * 5_000}"})
    short, long = (record for record in caplog.records if record.name == "django.security.csrf")
    words = (
        "Forbidden (Origin checking failed - https://evil.example.com\\x1b[2J does not match any trusted origins.)"
    )
    assert short.getMessage() == f"{words}: /admin/logout/"
    assert long.getMessage().startswith("Forbidden (Origin checking failed - https://evil.example.com/bbb")
    assert len(long.getMessage()) < 400
    assert [hasattr(record, "request") for record in (short, long)] == [False, False]
    assert long.levelno == logging.WARNING
