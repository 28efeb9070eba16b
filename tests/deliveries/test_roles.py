"""Who may see and do what in the console: every URL and every action, for every role."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver

from deliveries import roles
from deliveries.bulk import Operation
from deliveries.models import DeliveryAttempt, Event, WebhookRequest
from subscriptions import audit
from subscriptions.audit import AuditEntry
from subscriptions.models import ApiKey, EventType, Subscription
from tests.staff import seen

pytestmark = pytest.mark.django_db

# Which roles each action of the console is for. An action that is not here fails a test.
OPERATORS, ADMINS = {"Operator", "Admin"}, {"Admin"}
ACTIONS = {
    ("subscription", "pause"): OPERATORS,
    ("subscription", "resume"): OPERATORS,
    ("subscription", "open_circuit"): OPERATORS,
    ("subscription", "close_circuit"): OPERATORS,
    ("subscription", "enable"): ADMINS,
    ("subscription", "disable"): ADMINS,
    ("webhookrequest", "replay"): OPERATORS,
    ("webhookrequest", "cancel"): OPERATORS,
    ("operation", "cancel"): OPERATORS,
    ("apikey", "revoke"): ADMINS,
}

# What everybody on the staff may open, without a single permission.
FOR_STAFF = {"index", "logout", "password_change", "password_change_done", "jsi18n", "one_time_code", "login"}

Rows = dict[str, list[Any]]


def client_of(role: str) -> Client:
    client = Client()
    if role != "anonymous":
        user = User.objects.create_user(
            f"the {role}", is_staff=role != "customer", is_superuser=role == "superuser"
        )
        user.groups.set(Group.objects.filter(name=role))
        client.force_login(user)
    return client


@pytest.fixture
def rows(make_subscription: Callable[..., Subscription], make_request: Callable[..., WebhookRequest]) -> Rows:
    """Return rows of each kind, among them some that each action changes."""
    open_circuit = "2026-11-24T12:00:00Z"
    subscriptions = [make_subscription(status=status) for status in ("active", "paused", "disabled")]
    subscriptions.append(make_subscription(circuit_opened_at=open_circuit))
    pending = make_request(subscriptions[0])
    failed = make_request(subscriptions[0], status="failed", settled_at=open_circuit, next_attempt_at=None)
    attempt = DeliveryAttempt.objects.create(
        request=failed,
        subscription=subscriptions[0],
        attempt_number=1,
        trigger="initial",
        attempted_at=open_circuit,
        success=False,
        error="timeout",
    )
    audit.record(audit.Actor(kind="command", name="root@host"), "purge")
    key, _ = ApiKey.objects.create_key("of the tests", ["read"], tenant=None, valid_for=None)
    return {
        "subscription": subscriptions,
        "webhookrequest": [pending, failed],
        "deliveryattempt": [attempt],
        "event": [Event.objects.create(event_type="invoice.paid", payload=b"{}")],
        "operation": [Operation.objects.create(kind="replay")],
        "apikey": [key],
        "eventtype": [EventType.objects.create(name="invoice.paid")],
        "auditentry": [AuditEntry.objects.get(action="purge")],
        "user": [User.objects.create_superuser("root")],
    }


def state() -> list[Any]:
    """Return everything that people could change."""
    models = (Subscription, EventType, WebhookRequest, DeliveryAttempt, Event, Operation, ApiKey, Group)
    people = User.objects.order_by("pk").values_list("username", "password", "is_superuser", "is_active", "email")
    return [list(people), *(list(model.objects.order_by("pk").values()) for model in models)]


def patterns(found: list[Any], route: str = "/admin/") -> Iterator[tuple[str, str]]:
    """Yield the name and the route of every URL of the console."""
    for pattern in found:
        whole = route + str(pattern.pattern).removeprefix("^").removesuffix("$")
        if isinstance(pattern, URLResolver):
            yield from patterns(pattern.url_patterns, whole)
        elif isinstance(pattern, URLPattern):
            yield pattern.name or "", whole


def urls(rows: Rows) -> list[tuple[str, str]]:
    """Return every URL of the console with its name, its parameters filled in from the rows."""
    filled = []
    for name, route in patterns(admin.site.urls[0]):
        model = route.split("/")[3] if route.count("/") > 3 else ""
        row_id = str(rows[model][0].pk) if model in rows else "1"
        for parameter in ("<path:object_id>", "<uuid:row_id>", "<id>", "<path:content_type_id>"):
            route = route.replace(parameter, row_id)
        route = route.replace("<path:object_id>", row_id)
        if route.startswith("/admin/(?P<app_label>"):
            filled += [(name, f"/admin/{label}/") for label in ("subscriptions", "deliveries", "auth")]
        elif "(?P<url>" not in route:
            filled.append((name, route))
    assert not [route for _, route in filled if "<" in route]
    return filled


def opened(role: str, rows: Rows) -> set[str]:
    """Return the names of the pages that this role can open."""
    client = client_of(role)
    return {name for name, url in urls(rows) if client.get(url).status_code == 200}


def test_every_page_is_closed_to_who_is_not_logged_in_or_not_on_the_staff(rows):
    for role in ("anonymous", "customer"):
        client = client_of(role)
        for name, url in urls(rows):
            if name in ("login", "logout", ""):  # which are for everybody
                continue
            for answer in (client.get(url), client.post(url)):
                assert (name, answer.status_code) == (name, 302)
                assert answer["Location"].startswith("/admin/login/?next="), name


def test_staff_without_a_role_opens_nothing_that_matters(rows):
    assert opened("nobody in particular", rows) <= FOR_STAFF


PAGES = {
    f"{app}_{model}_{view}"
    for app, models in {
        "subscriptions": ("subscription", "eventtype", "apikey", "auditentry"),
        "deliveries": ("webhookrequest", "deliveryattempt", "event", "operation"),
    }.items()
    for model in models
    for view in ("changelist", "change")
} | {"deliveries_webhookrequest_payload", "deliveries_event_payload"}
PEOPLE = {"auth_user_changelist", "auth_user_change", "auth_user_add"}
NEW = {"subscriptions_subscription_add", "subscriptions_eventtype_add", "subscriptions_apikey_add"}


@pytest.mark.parametrize(
    ("role", "more"),
    [("Viewer", set()), ("Operator", set()), ("Admin", PEOPLE | NEW)],
)
def test_each_role_opens_its_pages_and_no_others(rows, role, more):
    assert opened(role, rows) - FOR_STAFF - {"app_list"} == PAGES | more


def test_a_superuser_opens_what_there_is(rows):
    more = PEOPLE | NEW | {"auth_user_password_change"}
    assert opened("superuser", rows) - FOR_STAFF - {"app_list"} == PAGES | more


@pytest.mark.parametrize("role", ["Viewer", "Operator", "Admin", "superuser"])
def test_a_get_changes_nothing(rows, role):
    client = client_of(role)
    before = state()
    parameters = {"action": "disable", "confirmed": "yes", "post": "yes", "step": "begin"}
    for _, url in urls(rows):
        client.get(url, parameters | {"_selected_action": [str(row.pk) for row in rows["subscription"]]})
    assert state() == before


@pytest.mark.parametrize("role", ["nobody in particular", "Viewer"])
def test_who_may_only_look_changes_nothing_whatever_is_posted(rows, role):
    client = client_of(role)
    before = state()
    for _, url in urls(rows):
        if "/logout/" in url or "/login/" in url:
            continue
        model = url.split("/")[3] if url.count("/") > 3 else ""
        ids = [str(row.pk) for row in rows.get(model, [])]
        fields = {
            "_selected_action": ids,
            "confirmed": "yes",
            "post": "yes",
            "username": "x",
            "is_superuser": "on",
        }
        fields |= {"target_url": "https://evil.example.com/", "timeout_seconds": "1", "max_in_flight": "1"}
        for action in ("", *(name for kind, name in ACTIONS if kind == model), "delete_selected"):
            client.post(url, fields | {"action": action})
    assert state() == before


def test_every_action_of_the_console_is_known_here():
    request = RequestFactory().get("/")
    request.user = User.objects.create_superuser("root")
    found = {
        (model._meta.model_name, name)
        for model, model_admin in admin.site._registry.items()
        for name in model_admin.get_actions(request)
    }
    assert found == set(ACTIONS)


@pytest.mark.parametrize("role", ["nobody in particular", "Viewer", "Operator", "Admin"])
@pytest.mark.parametrize(("kind", "action"), ACTIONS)
def test_an_action_is_for_those_roles_alone(rows, role, kind, action):
    app = type(rows[kind][0])._meta.app_label
    before = state()
    client = client_of(role)
    before[0] = state()[0]
    ids = [str(row.pk) for row in rows[kind]]
    fields = {"action": action, "_selected_action": ids, "confirmed": "yes"}
    client.post(f"/admin/{app}/{kind}/", fields)
    allowed = role in ACTIONS[kind, action]
    assert (state() != before) is allowed
    assert AuditEntry.objects.filter(actor=f"the {role}", action=action.replace("_", " ")).exists() is allowed


def test_an_admin_makes_nobody_a_superuser_and_touches_none(rows):
    client = client_of("Admin")
    root = rows["user"][0]
    other = User.objects.create_user("other")
    page = f"/admin/auth/user/{other.pk}/change/"
    fields = {"username": "other", "is_active": "on", "is_staff": "on", "is_superuser": "on"}
    assert client.post(page, fields | {"user_permissions": ["1"]} | seen(other)).status_code == 302
    other.refresh_from_db()
    assert (other.is_staff, other.is_superuser, other.user_permissions.count()) == (True, False, 0)
    passwords = {"password1": "a password of mine", "password2": "a password of mine", "usable_password": "true"}
    for url in (f"/admin/auth/user/{root.pk}/change/", f"/admin/auth/user/{root.pk}/password/"):
        assert client.post(url, passwords | {"username": "mine"}).status_code == 403
    for person in (root, other):
        assert client.post(f"/admin/auth/user/{person.pk}/delete/", {"post": "yes"}).status_code == 403


def test_the_roles_are_made_by_migrate_and_get_what_is_missing():
    Group.objects.get(name="Viewer").permissions.clear()
    Group.objects.filter(name="Operator").delete()
    roles.make_roles()
    names = {group.name: {p.codename for p in group.permissions.all()} for group in Group.objects.all()}
    assert set(names) == {"Viewer", "Operator", "Admin"}
    acts = {"operate_subscription", "replay_webhookrequest", "cancel_webhookrequest"}
    assert names["Operator"] - names["Viewer"] == acts
    assert all(name.startswith("view_") for name in names["Viewer"])
    assert names["Admin"] > names["Operator"]
