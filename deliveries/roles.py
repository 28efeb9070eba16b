"""The roles of the console, as groups: Viewer reads, Operator also acts, Admin does everything."""

from typing import Any

from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.db.models import Q

OURS = ("subscriptions", "deliveries")

SEES = Q(content_type__app_label__in=OURS, codename__startswith="view_")
ACTS = Q(codename__in=("operate_subscription", "replay_webhookrequest", "cancel_webhookrequest"))
MANAGES_PEOPLE = Q(content_type__app_label="auth", codename__in=("view_user", "add_user", "change_user"))

ROLES = {
    "Viewer": SEES,
    "Operator": SEES | ACTS,
    "Admin": Q(content_type__app_label__in=OURS) | MANAGES_PEOPLE,
}


def make_roles(**kwargs: Any) -> None:
    """Make the groups, or give them the permissions that they should have by now.

    Called after each migrate and not by one migration, because a permission exists only
    when all migrations are done, and the next version brings another one.
    """
    for label in (*OURS, "auth"):
        create_permissions(apps.get_app_config(label), verbosity=0)
    for name, permissions in ROLES.items():
        group, _ = Group.objects.get_or_create(name=name)
        group.permissions.set(Permission.objects.filter(permissions))
