"""Commands of Django and of django-axes that change who gets into the admin: run as they are, and recorded."""

import getpass
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import ip_address
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from subscriptions import audit

# What the options of a command are called that lifts lockouts.
LIFTED = ("username", "ip")


def recorded(command: BaseCommand, name: str) -> BaseCommand:
    """Return a command that goes to the audit log, if it is one of these, once it has done what it does."""
    if name in RECORDED:
        vars(command)["handle"] = partial(RECORDED[name], command.handle)
    return command


def _create_user(handle: Callable[..., Any], *args: Any, **options: Any) -> Any:
    newest = User.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    output = handle(*args, **options)
    for user in User.objects.filter(pk__gt=newest):
        after = {"username": user.username, "is_superuser": True}
        audit.record(audit.command_actor(), "add", kind="user", object_id=user.pk, after=after)
    return output


def _change_password(handle: Callable[..., Any], *args: Any, **options: Any) -> Any:
    output = handle(*args, **options)
    user = User.objects.get(username=options["username"] or getpass.getuser())
    after = {"password": audit.CHANGED}
    audit.record(audit.command_actor(), "change", kind="user", object_id=user.pk, after=after)
    return output


def _lift_lockouts(handle: Callable[..., Any], *args: Any, **options: Any) -> Any:
    given = options.get("ip", [])
    for text in [given] if isinstance(given, str) else given:
        _check_address(text)
    output = handle(*args, **options)
    after = {name: options[name] for name in LIFTED if name in options}
    audit.record(audit.command_actor(), "lift lockout", kind="user", after=after)
    return output


def _check_address(text: str) -> None:
    try:
        ip_address(text)
    except ValueError:
        raise CommandError(f"{text!r} is not an IP address.") from None


RECORDED: Mapping[str, Callable[..., Any]] = {
    "axes_reset": _lift_lockouts,
    "axes_reset_ip": _lift_lockouts,
    "axes_reset_ip_username": _lift_lockouts,
    "axes_reset_username": _lift_lockouts,
    "changepassword": _change_password,
    "createsuperuser": _create_user,
}
