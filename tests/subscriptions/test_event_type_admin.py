"""The admin's pages for event types."""

import contextlib

import pytest
from django.db import connection
from django.urls import reverse

from subscriptions import schema_cache
from subscriptions.audit import AuditEntry
from subscriptions.catalog import EventType
from tests.staff import operator_client, seen, staff_client

pytestmark = pytest.mark.django_db

LIST = "admin:subscriptions_eventtype_changelist"
ADD = "admin:subscriptions_eventtype_add"


def change_url(event_type):
    return reverse("admin:subscriptions_eventtype_change", args=[event_type.pk])


def form(**fields):
    given = {"name": "invoice.paid", "description": "", "schema": "", "example": "", "validation": "off"}
    return given | fields


def test_it_describes_an_event_type_and_records_who_did():
    answer = operator_client().post(
        reverse(ADD),
        form(schema='{"type": "object"}', example="{}", validation="enforce", description="Paid."),
    )
    assert answer.status_code == 302
    [event_type] = EventType.objects.all()
    assert (event_type.name, event_type.schema, event_type.example) == ("invoice.paid", {"type": "object"}, {})
    assert (event_type.validation, event_type.description) == ("enforce", "Paid.")
    [entry] = AuditEntry.objects.filter(object_id=str(event_type.pk))
    assert (entry.actor, entry.action, entry.object_kind) == ("operator", "add", "event type")


def test_it_enforces_nothing_without_a_schema():
    answer = operator_client().post(reverse(ADD), form(validation="enforce"))
    assert "Without a schema nothing can be enforced." in answer.content.decode()
    assert not EventType.objects.exists()


def test_it_changes_one_but_not_its_name_and_the_process_forgets_its_schema():
    event_type = EventType.objects.create(name="a", schema={"type": "object"}, validation="warn")
    schema_cache.put({}, generation=schema_cache.generation())
    client = operator_client()
    changed = form(name="b", validation="off", **seen(event_type))
    assert client.post(change_url(event_type), changed).status_code == 302
    event_type.refresh_from_db()
    assert (event_type.name, event_type.validation, event_type.schema) == ("a", "off", None)
    assert schema_cache.fresh() is None
    schema_cache.end_reading()


def test_it_saves_nothing_over_a_change_that_was_not_seen():
    event_type = EventType.objects.create(name="a", description="old")
    form_as_opened = form(name="a", validation="warn", **seen(event_type))
    event_type.description = "new"
    event_type.save()
    answer = operator_client().post(change_url(event_type), form_as_opened)
    assert "this was changed since the page was opened" in answer.content.decode()
    event_type.refresh_from_db()
    assert (event_type.description, event_type.validation) == ("new", "off")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"name": "a b"}, "An event type has letters, digits, _ and -, in segments joined by dots."),
        ({"schema": '{"type": 1}'}, "/type:"),
        ({"schema": '{"type": "object"}', "example": "[]"}, "is not of type &quot;object&quot;"),
        ({"example": '"\\u0000"'}, "Null characters are not allowed."),
    ],
)
def test_it_says_what_is_wrong(fields, error):
    answer = operator_client().post(reverse(ADD), form(**fields))
    assert answer.status_code == 200
    assert error in answer.content.decode()
    assert not EventType.objects.exists()


def test_an_example_is_not_compared_with_a_schema_that_is_too_long_to_be_stored():
    too_long = '{"type": "object", "description": "%s"}' % ("x" * 70_000)
    answer = operator_client().post(reverse(ADD), form(schema=too_long, example="1"))
    assert set(answer.context["adminform"].form.errors) == {"schema"}


def test_it_lists_and_finds_them():
    EventType.objects.create(name="invoice.paid", schema={})
    EventType.objects.create(name="order.made")
    page = operator_client().get(reverse(LIST), {"q": "invoice"}).content.decode()
    assert "invoice.paid" in page
    assert "order.made" not in page


def test_who_may_only_look_cannot_change_anything():
    event_type = EventType.objects.create(name="a")
    client = staff_client("view_eventtype")
    page = client.get(change_url(event_type))
    assert (page.status_code, "Seen" in page.content.decode()) == (200, False)
    assert client.post(change_url(event_type), form(name="a", description="x")).status_code == 403
    assert client.get(reverse(ADD)).status_code == 403


def test_nobody_deletes_one():
    event_type = EventType.objects.create(name="a")
    url = reverse("admin:subscriptions_eventtype_delete", args=[event_type.pk])
    assert operator_client().post(url, {"post": "yes"}).status_code == 403
    assert EventType.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_it_says_in_the_form_that_somebody_else_has_just_taken_the_name():
    statement = (
        "INSERT INTO event_types (id, name, description, validation, deprecated)"
        " VALUES (gen_random_uuid(), 'invoice.paid', '', 'off', false) ON CONFLICT DO NOTHING"
    )

    def take_it_first(execute, sql, *parameters):
        if sql.startswith('INSERT INTO "event_types"'):
            with contextlib.closing(connection.copy()) as other, other.cursor() as cursor:
                cursor.execute(statement)
        return execute(sql, *parameters)

    client = operator_client()
    with connection.execute_wrapper(take_it_first):
        answer = client.post(reverse(ADD), form(description="mine"))
    assert "Event type with this Name already exists." in answer.content.decode()
    assert [event_type.description for event_type in EventType.objects.all()] == [""]
