"""Commands of libraries that change who gets into the admin are in the audit log, when manage.py runs them."""

import getpass
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.core.management import CommandError

from manage import Utility
from subscriptions import audit
from subscriptions.audit import AuditEntry

pytestmark = pytest.mark.django_db


def run(name: str, *arguments: str, **options: Any) -> Any:
    command = Utility(["manage.py", name]).fetch_command(name)
    parsed = vars(command.create_parser("manage.py", name).parse_args(list(arguments)))
    return command.execute(*parsed.pop("args", ()), **parsed | options)


def entries() -> list[dict[str, Any]]:
    names = ("actor_kind", "actor", "action", "object_kind", "object_id", "before", "after")
    return list(AuditEntry.objects.order_by("id").values(*names))


def entry(action: str, *, object_id: object = "", after: dict[str, Any]) -> dict[str, Any]:
    told = {"actor_kind": "command", "actor": audit.command_actor().name, "object_kind": "user", "before": {}}
    return told | {"action": action, "object_id": str(object_id), "after": after}


def test_it_records_a_superuser_that_is_made(monkeypatch):
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "a password that is long")
    User.objects.create_superuser("grace")
    run("createsuperuser", "--noinput", "--username", "ada", "--email", "ada@example.com")
    user = User.objects.get(username="ada")
    after = {"username": "ada", "is_superuser": True}
    assert entries() == [entry("add", object_id=user.pk, after=after)]


def test_it_records_nothing_of_a_superuser_that_is_not_made(monkeypatch):
    User.objects.create_superuser("ada")
    with pytest.raises(CommandError):
        run("createsuperuser", "--noinput", "--username", "ada", "--email", "ada@example.com")
    assert entries() == []


@pytest.mark.parametrize("arguments", [["ada"], []])
def test_it_records_a_password_that_is_changed(monkeypatch, arguments):
    user = User.objects.create_superuser("ada")
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    monkeypatch.setattr(getpass, "getpass", lambda **options: "a password that is long")
    run("changepassword", *arguments)
    user.refresh_from_db()
    assert user.check_password("a password that is long")
    assert entries() == [entry("change", object_id=user.pk, after={"password": "changed"})]


@pytest.mark.parametrize(
    ("command", "arguments", "after"),
    [
        ("axes_reset", [], {}),
        ("axes_reset_username", ["ada", "grace"], {"username": ["ada", "grace"]}),
        ("axes_reset_ip", ["192.0.2.1"], {"ip": ["192.0.2.1"]}),
        ("axes_reset_ip_username", ["192.0.2.1", "ada"], {"username": "ada", "ip": "192.0.2.1"}),
    ],
)
def test_it_records_a_lockout_that_is_lifted(command, arguments, after):
    AccessAttempt.objects.create(username="ada", ip_address="192.0.2.1", failures_since_start=5)
    run(command, *arguments)
    assert AccessAttempt.objects.count() == 0
    assert entries() == [entry("lift lockout", after=after)]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("axes_reset_ip", ["192.0.2.7", "nonsense"]), ("axes_reset_ip_username", ["nonsense", "ada"])],
)
def test_it_refuses_what_is_no_address(command, arguments):
    with pytest.raises(CommandError, match=r"^'nonsense' is not an IP address\.$"):
        run(command, *arguments)
    assert entries() == []
