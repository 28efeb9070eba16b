"""People who work with the admin, each with exactly the permissions that a test gives them."""

from django.contrib.auth.models import Permission, User
from django.http import HttpResponse
from django.test import Client


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


def messages_of(response: HttpResponse) -> list[str]:
    return [str(message) for message in response.context["messages"]]
