"""People who work with the admin, each with exactly the permissions that a test gives them."""

import time

from django.contrib.auth.models import Permission, User
from django.http import HttpResponse
from django.test import Client
from django_otp.oath import TOTP
from django_otp.plugins.otp_totp.models import TOTPDevice

from subscriptions import code_keys
from subscriptions.catalog import EventType
from subscriptions.form_fields import FreshForm
from subscriptions.models import Subscription
from subscriptions.people_admin import PersonForm

PASSWORD = "the right password"


def staff_client(*permissions: str) -> Client:
    """Return the client of a staff member who has these permissions, such as view_event, and no others."""
    user = User.objects.create_user(f"with {' '.join(permissions) or 'nothing'}", is_staff=True)
    found = Permission.objects.filter(codename__in=permissions)
    assert len(found) == len(permissions)
    user.user_permissions.set(found)
    client = Client()
    client.force_login(user)
    return client


def operator_client() -> Client:
    """Return the client of a superuser."""
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    return client


def seen(row: Subscription | EventType | User) -> dict[str, str]:
    """Return the field by which the form of a row knows how it was when the page was opened."""
    row.refresh_from_db()
    form = PersonForm if isinstance(row, User) else FreshForm
    return {"seen": form.state_of(row)}


def messages_of(response: HttpResponse) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def add_one_time_code(user: User) -> TOTPDevice:
    """Return a device that this user has set up."""
    device = code_keys.add_device(user)
    TOTPDevice.objects.filter(pk=device.pk).update(confirmed=True)
    return device


def code_of(device: TOTPDevice) -> str:
    """Return the code that the app would show now, by the published algorithm (RFC 6238)."""
    totp = TOTP(code_keys.opened(TOTPDevice.objects.get(pk=device.pk)).bin_key)
    totp.time = time.time()
    return f"{totp.token():06}"
