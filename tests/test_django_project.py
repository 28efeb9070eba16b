"""docs/django.md: another Django project installs the two apps, as it says, and publishes."""

import base64
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from psycopg import sql

from tests.receiver import Receiver

ROOT = Path(__file__).resolve().parent.parent

MANAGE = """
import sys
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""

BEFORE = """
import os
SECRET_KEY = "of a test, and long enough to be taken by the checks of settings"
DEBUG = True
ROOT_URLCONF = "shop.urls"
ALLOWED_HOSTS = ["testserver"]
MIDDLEWARE = []
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": %r}
"""

PUBLISH = """
import os, sys
import deliveries  # before the apps are loaded, as settings might
import django
django.setup()
from django.contrib.auth.models import Group
from django.db import transaction
from django.test import Client
from subscriptions.models import Subscription
subscription = Subscription(target_url=sys.argv[1], event_types=["order.*"], tenant="acme")
subscription.set_secret("a secret that the receiver knows")
subscription.full_clean()
subscription.save()
for order in (1, 2, 3):
    with transaction.atomic():
        deliveries.publish("order.placed", {"order": order}, tenant="acme")
        transaction.set_rollback(order == 2)
answer = Client().post(
    "/webhooks/events", {"event_type": "order.placed", "body": {"order": 4}, "tenant": "acme"}, "application/json"
)
assert answer.status_code == 202, answer.content
made = [
    Client().post(f"/webhooks/{path}", body, "application/json")
    for path, body in (
        ("subscriptions", {"target_url": sys.argv[1], "tenant": "b"}),
        ("event-types", {"name": "a.b"}),
    )
]
assert made[0]["Location"] == f"/webhooks/subscriptions/{made[0].json()['id']}", made[0]["Location"]
assert made[1]["Location"] == "/webhooks/event-types/a.b", made[1]["Location"]
assert [Client().get(each["Location"]).status_code for each in made] == [200, 200]
assert Client().get("/webhooks/events?tenant=nobody").json()["results"] == []
assert Client().options("/webhooks/subscriptions").json() == {}
assert not Group.objects.exists()  # the roles are the service's own
"""


@pytest.fixture
def database():
    """The settings of a fresh database on the tests' server."""
    values = {name: connection.settings_dict[name] for name in ("USER", "PASSWORD", "HOST", "PORT")}
    values["ENGINE"] = "django.db.backends.postgresql"  # as a project of its own would have it
    name = f"shop_{uuid.uuid4().hex}"
    server = {
        "host": values["HOST"],
        "port": values["PORT"],
        "user": values["USER"],
        "password": values["PASSWORD"],
    }
    given = {key: value for key, value in server.items() if value}
    with psycopg.connect(dbname="postgres", autocommit=True, **given) as own:
        own.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield values | {"NAME": name, "OPTIONS": {"prepare_threshold": 5}}
        own.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def code_blocks():
    """Return the blocks of Python in the guide: publish, settings, subscription, urls, REST settings."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs/django.md").read_text(), re.DOTALL)


@pytest.fixture
def project(tmp_path, database):
    """A project that has the apps installed as the guide says; returns a function that runs Python in it."""
    _, installed, _, urls, rest_framework = code_blocks()
    for name in ("subscriptions", "deliveries"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").touch()
    (tmp_path / "shop/settings.py").write_text(BEFORE % database + installed + rest_framework)
    (tmp_path / "shop/urls.py").write_text(urls)
    (tmp_path / "manage.py").write_text(MANAGE)
    (tmp_path / "publish.py").write_text(PUBLISH)
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "REDIS_URL": settings.REDIS_URL,
        "SECRET_KEYS": base64.b64encode(os.urandom(32)).decode(),
    }

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_guide_leads_to_a_project_that_publishes_and_delivers(project, receiver: Receiver):
    assert "no issues" in project("manage.py", "check")
    project("manage.py", "migrate", "--verbosity", "0")
    assert "No changes detected" in project("manage.py", "makemigrations", "--check", "--dry-run")
    project("publish.py", receiver.url)
    project("manage.py", "rqworker", "deliveries", "--burst")
    bodies = sorted(arrival.body for arrival in receiver.wait_until(lambda arrivals: len(arrivals) >= 3))
    assert bodies == [b'{"order": 4}', b'{"order":1}', b'{"order":3}']
