"""The console's cookies and headers: for HTTPS alone outside development mode, and never for scripts."""

import json
import os
import subprocess
import sys

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client

from tests.service import BASE_DIR

SETTINGS = (
    "SESSION_COOKIE_NAME",
    "SESSION_COOKIE_SECURE",
    "SESSION_COOKIE_HTTPONLY",
    "SESSION_COOKIE_SAMESITE",
    "SESSION_COOKIE_PATH",
    "SESSION_COOKIE_DOMAIN",
    "CSRF_COOKIE_NAME",
    "CSRF_COOKIE_SECURE",
)

TELL = f"""
import json
import django
from django.conf import settings
print(json.dumps([getattr(settings, name) for name in {SETTINGS!r}]))
"""


def test_outside_development_mode_cookies_are_for_this_host_and_https_alone():
    environment = os.environ | {"DEBUG": "off", "DJANGO_SETTINGS_MODULE": "config.settings"}
    told = subprocess.run(
        [sys.executable, "-c", TELL], cwd=BASE_DIR, env=environment, capture_output=True, text=True, check=True
    )
    # A cookie of the prefix __Host- has to be secure, for the path / and for no domain.
    assert json.loads(told.stdout) == [
        "__Host-sessionid",
        True,
        True,
        "Lax",
        "/",
        None,
        "__Host-csrftoken",
        True,
    ]


@pytest.mark.django_db
def test_scripts_and_other_sites_get_no_cookie_and_a_session_ends_after_twelve_hours():
    User.objects.create_superuser("ada", password="the right password")
    client = Client()
    client.get("/admin/login/")
    client.post("/admin/login/", {"username": "ada", "password": "the right password", "next": "/admin/"})
    session, csrf = client.cookies["sessionid"], client.cookies["csrftoken"]
    assert (session["httponly"], session["samesite"], session["max-age"]) == (True, "Lax", 12 * 3600)
    assert (csrf["httponly"], csrf["samesite"]) == (True, "Strict")


@pytest.mark.django_db
def test_what_the_database_has_of_a_session_is_of_no_use():
    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    stored, key = Session.objects.values_list("session_key", flat=True).get(), client.cookies["sessionid"].value
    assert (len(key), len(stored)) == (32, 40)
    assert client.get("/admin/").status_code == 200
    client.cookies["sessionid"] = stored
    assert client.get("/admin/").status_code == 302
    client.cookies["sessionid"] = key
    client.post("/admin/logout/")
    assert not Session.objects.exists()
    client.cookies["sessionid"] = key
    assert client.get("/admin/").status_code == 302


@pytest.mark.django_db
def test_every_page_says_what_browsers_may_do_with_it():
    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    for url in ("/admin/", "/admin/login/", "/admin/subscriptions/subscription/", "/docs", "/redoc", "/health"):
        headers = client.get(url, follow=True).headers
        assert {
            name: headers.get(name)
            for name in (
                "X-Content-Type-Options",
                "X-Frame-Options",
                "Referrer-Policy",
                "Cross-Origin-Opener-Policy",
            )
        } == {
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
        }
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert (policy["default-src"], policy["script-src"]) == ("'none'", "'self'")
