"""The audit log: every change and action once, without secrets, and for good."""

import json
import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from subscriptions import audit
from subscriptions.audit import Actor, AuditEntry
from subscriptions.models import ApiKey, Subscription
from tests.staff import seen, staff_client

pytestmark = pytest.mark.django_db

LIST = "/admin/subscriptions/auditentry/"
SUBSCRIPTIONS = "/admin/subscriptions/subscription/"
ACTOR = Actor(kind="user", name="ada", address="192.0.2.1")


def recorded(**conditions) -> list[AuditEntry]:
    """Return what was recorded, oldest first, but for logins."""
    return list(AuditEntry.objects.exclude(action="log in").filter(**conditions).order_by("id"))


def whole(entry: AuditEntry) -> dict:
    names = ("actor_kind", "actor", "action", "object_kind", "object_id", "before", "after", "address")
    return {name: getattr(entry, name) for name in names}


def test_it_records_a_change_with_the_changed_fields_alone(operator, make_subscription):
    subscription = make_subscription("https://old.example.com/", description="invoices", timeout_seconds=5)
    fields = {"target_url": "https://new.example.com/", "description": "invoices", "timeout_seconds": "5"}
    fields |= {"event_types": "invoice.*", "retry_schedule": "10,20", "max_in_flight": "32", "tenant": ""}
    url = reverse("admin:subscriptions_subscription_change", args=(subscription.id,))
    response = operator.post(url, fields | seen(subscription), headers={"Request-Id": "my-request"})
    assert response.status_code == 302
    (entry,) = recorded()
    assert entry.request_id == "my-request"
    assert whole(entry) == {
        "actor_kind": "user",
        "actor": "operator",
        "action": "change",
        "object_kind": "subscription",
        "object_id": str(subscription.id),
        "before": {
            "target_url": "https://old.example.com/",
            "event_types": [],
            "retry_schedule": [120, 240, 480, 960, 1920],
        },
        "after": {
            "target_url": "https://new.example.com/",
            "event_types": ["invoice.*"],
            "retry_schedule": [10, 20],
        },
        "address": "127.0.0.1",
    }
    assert operator.post(url, fields | seen(subscription)).status_code == 302
    assert len(recorded()) == 1


def test_it_records_an_addition_without_the_secret(operator):
    fields = {"target_url": "https://new.example.com/", "timeout_seconds": "5", "max_in_flight": "2"}
    operator.post(f"{SUBSCRIPTIONS}add/", fields | {"secret": "my own secret", "retry_schedule": "1"})
    (entry,) = recorded()
    assert (entry.action, entry.before) == ("add", {})
    assert entry.after["secret"] == "changed"
    assert entry.after["target_url"] == "https://new.example.com/"
    assert "my own" not in str(entry.after)


def test_it_records_each_row_that_an_action_changed_and_no_other(operator, make_subscription):
    rows = [make_subscription(), make_subscription(), make_subscription(status="paused")]
    operator.post(SUBSCRIPTIONS, {"action": "pause", "_selected_action": [str(row.id) for row in rows]})
    assert [(entry.action, entry.object_id, entry.before, entry.after) for entry in recorded()] == [
        ("pause", str(row.id), {"status": "active"}, {"status": "paused"}) for row in rows[:2]
    ]


def test_it_records_what_happens_to_people(operator):
    fields = {"username": "grace", "password1": "a long enough password", "password2": "a long enough password"}
    operator.post("/admin/auth/user/add/", fields | {"usable_password": "true"})
    user = User.objects.get(username="grace")
    page = reverse("admin:auth_user_change", args=(user.pk,))
    viewer = Group.objects.get_or_create(name="Viewer")[0]
    fields = {"username": "grace", "is_active": "on", "is_staff": "on", "groups": [str(viewer.pk)]}
    operator.post(page, fields | seen(user))
    passwords = {"password1": "another long password", "password2": "another long password"}
    operator.post(f"/admin/auth/user/{user.pk}/password/", passwords | {"usable_password": "true"})
    added, changed, password = recorded(object_kind="user", object_id=str(user.pk))
    assert (added.action, added.after["username"], added.after["password"]) == ("add", "grace", "changed")
    assert (changed.before, changed.after) == (
        {"is_staff": False, "groups": []},
        {"is_staff": True, "groups": ["Viewer"]},
    )
    assert (password.action, password.before, password.after) == ("change", {}, {"password": "changed"})


def test_it_records_who_changes_the_own_password():
    user = User.objects.create_superuser("ada", password="the old password")
    client = Client()
    client.force_login(user)
    fields = {"old_password": "wrong", "new_password1": "quite a new word", "new_password2": "quite a new word"}
    client.post("/admin/password_change/", fields)
    assert [entry.action for entry in recorded()] == ["fail to log in"]
    client.post("/admin/password_change/", fields | {"old_password": "the old password"})
    assert [(entry.actor, entry.after) for entry in recorded(action="change")] == [
        ("ada", {"password": "changed"})
    ]


def test_it_records_revoked_keys(operator):
    key, _ = ApiKey.objects.create_key("billing", ["read"], tenant=None, valid_for=timedelta(days=1))
    data = {"action": "revoke", "_selected_action": [str(key.id)], "confirmed": "yes"}
    operator.post("/admin/subscriptions/apikey/", data)
    (entry,) = recorded()
    assert (entry.action, entry.object_kind, entry.object_id) == ("revoke", "API key", str(key.id))
    assert list(entry.after) == ["revoked_at"]


def test_a_change_that_cannot_be_recorded_is_not_made(operator, make_subscription, full_audit_log):
    subscription = make_subscription()
    data = {"action": "pause", "_selected_action": [str(subscription.id)]}
    with pytest.raises(IntegrityError, match="audit_log_is_full"):
        operator.post(SUBSCRIPTIONS, data)
    subscription.refresh_from_db()
    assert subscription.status == "active"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET actor = 'somebody else'",
        "DELETE FROM audit_entries",
        "DELETE FROM audit_entries WHERE false",
        "INSERT INTO audit_entries SELECT * FROM audit_entries ON CONFLICT (id) DO UPDATE SET actor = 'x'",
    ],
)
def test_the_database_refuses_to_change_or_delete_an_entry(statement):
    audit.record(ACTOR, "pause")
    with pytest.raises(DatabaseError, match="neither changed nor deleted"), transaction.atomic():
        connection.cursor().execute(statement)
    assert [entry.actor for entry in recorded()] == ["ada"]


def test_the_database_refuses_to_empty_the_log():
    audit.record(ACTOR, "pause")
    with connection.cursor() as cursor:
        # Off for the tests alone; see tests/conftest.py.
        cursor.execute("ALTER TABLE audit_entries ENABLE TRIGGER audit_entries_kept")
        with pytest.raises(DatabaseError, match="neither changed nor deleted"), transaction.atomic():
            cursor.execute("TRUNCATE audit_entries")
        cursor.execute("ALTER TABLE audit_entries DISABLE TRIGGER audit_entries_kept")
    assert len(recorded()) == 1


def test_nobody_edits_or_deletes_it_in_the_console(operator):
    audit.record(ACTOR, "pause")
    (entry,) = recorded()
    page = reverse("admin:subscriptions_auditentry_change", args=(entry.id,))
    urls = (f"{LIST}add/", page, page.replace("change", "delete"))
    assert [operator.post(url, {"post": "yes", "actor": "x"}).status_code for url in urls] == [403, 403, 403]
    assert "delete_selected" not in operator.get(LIST).content.decode()
    for word in ("<input", "<select", "<textarea"):
        editable = re.findall(f"{word}[^>]*>", operator.get(page).content.decode())
        assert [tag for tag in editable if "csrfmiddlewaretoken" not in tag] == []
    assert not {"add", "change", "delete"} & set(AuditEntry._meta.default_permissions)


def test_it_lists_filters_and_searches(operator):
    audit.record(ACTOR, "pause", kind="subscription", object_id="one")
    audit.record(Actor(kind="command", name="root@host"), "purge", after={"purged": 3})
    first, second = recorded()

    def found(**parameters: str) -> list[AuditEntry]:
        response = operator.get(LIST, parameters)
        assert response.status_code == 200
        return [entry for entry in response.context["cl"].result_list if entry.action != "log in"]

    assert found() == [second, first]
    for term in ("ada", "pause", "one", "192.0.2.1"):
        assert found(q=term) == [first]
    assert found(q="purge", within="hour") == [second]
    assert found(actor_kind__exact="command") == [second]
    assert found(kind="subscription") == [first]
    assert found(object_id__exact="one") == [first]
    assert found(q="nothing") == []


def test_a_search_for_an_address_leaves_out_its_zone(operator):
    audit.record(Actor(kind="user", name="ada", address="fe80::1"), "pause")
    for zone in ("", "%eth0", f"%25{'a' * 40}"):
        answer = operator.get(LIST, {"q": f"fe80::1{zone}"})
        assert [entry.address for entry in answer.context["cl"].result_list] == ["fe80::1"]


def test_it_lists_in_as_many_queries_and_without_counting_the_table(operator):
    for number in range(5):
        audit.record(ACTOR, "pause", object_id=number)
    with CaptureQueriesContext(connection) as captured:
        operator.get(LIST)
    queries = [query["sql"] for query in captured if "SAVEPOINT" not in query["sql"]]
    assert len(queries) == 6  # session, user, one-time code, time limit, bounded count, page
    assert [sql for sql in queries if "COUNT(*)" in sql and "LIMIT 10001" not in sql] == []


def test_a_row_leads_to_its_history(operator, make_subscription):
    subscription = make_subscription()
    response = operator.get(f"{SUBSCRIPTIONS}{subscription.id}/history/")
    assert response["Location"] == f"{LIST}?object_id__exact={subscription.id}"
    assert operator.get(response["Location"]).status_code == 200


@pytest.mark.parametrize(
    ("kind", "object_id", "page"),
    [
        ("subscription", "01a20c30-6b90-770e-aa91-7c145d416c3e", "subscriptions/subscription"),
        ("event type", "01a20c30-6b90-770e-aa91-7c145d416c3e", "subscriptions/eventtype"),
        ("API key", "01a20c30-6b90-770e-aa91-7c145d416c3e", "subscriptions/apikey"),
        ("webhook request", "01a20c30-6b90-770e-aa91-7c145d416c3e", "deliveries/webhookrequest"),
        ("operation", "01a20c30-6b90-770e-aa91-7c145d416c3e", "deliveries/operation"),
        ("user", "7", "auth/user"),
        ("queue", "queues/0/empty/", None),
        ("webhook request", "", None),
        ("user", "", None),
        ("something else", "<b>/../x", None),
    ],
)
def test_an_entry_leads_to_what_it_is_about(operator, kind, object_id, page):
    audit.record(ACTOR, "change", kind=kind, object_id=object_id)
    [entry] = recorded()
    links = [f'href="/admin/{page}/{object_id}/change/"'] if page else []
    for url in (f"{LIST}?q=ada", reverse("admin:subscriptions_auditentry_change", args=[entry.id])):
        content = re.search(
            r'class="[^"]*field-shown_object_id.*?</(?:td|div)>', operator.get(url).content.decode(), re.DOTALL
        )
        assert re.findall(r'href="[^"]*"', content[0]) == links


def test_nobody_is_led_to_people_who_may_not_see_them():
    audit.record(ACTOR, "change", kind="user", object_id=7)
    content = staff_client("view_auditentry").get(f"{LIST}?q=ada").content.decode()
    assert "/admin/auth/user/" not in content


def test_changes_tell_of_secrets_only_that_they_changed(make_subscription):
    subscription = make_subscription(secret="the first secret")
    before = audit.snapshot(subscription)
    subscription.set_secret("another password")
    subscription.tenant = "acme"
    old, new = audit.changes(before, audit.snapshot(subscription))
    entry = audit.entry(ACTOR, "change", before=old, after=new)
    assert entry.before == {"secret_hint": "…cret", "tenant": ""}
    assert entry.after == {"secret": "changed", "secret_hint": "…word", "tenant": "acme"}


def test_it_ignores_what_the_engine_notes(make_subscription):
    subscription = make_subscription()
    before = audit.snapshot(subscription)
    Subscription.objects.update(window_calls=3, rate_counts=[1])
    subscription.refresh_from_db()
    assert audit.changes(before, audit.snapshot(subscription)) == ({}, {})


def test_it_cuts_long_texts():
    entry = audit.entry(ACTOR, "change", after={"description": "x" * 5000})
    assert entry.after == {"description": f"{'x' * 1000}… (5000 characters)"}


def test_it_indents_nothing_that_would_grow_beyond_all_bounds(operator):
    def shown(example: str) -> str:
        actor = Actor(kind=AuditEntry.ActorKind.COMMAND)
        audit.record(actor, "add", kind="event type", after={"example": json.loads(example)})
        entry = AuditEntry.objects.filter(action="add").first()
        return operator.get(f"/admin/subscriptions/auditentry/{entry.id}/change/").content.decode()

    assert "\n    1,\n    2\n" in shown("[1, 2]")
    assert len(shown("[" * 400 + "1," * 21_000 + "1" + "]" * 400)) < 100_000
