"""GET, POST and PATCH /event-types: the catalog of what is published."""

import contextlib
import threading

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from subscriptions.audit import AuditEntry
from subscriptions.catalog import EventType
from tests.expected import REQUEST_ID, invalid, problem, rfc3339

pytestmark = pytest.mark.django_db

SCHEMA = {"type": "object", "required": ["total"], "properties": {"total": {"type": "integer"}}}
TOO_LONG = "This JSON has more than 65536 bytes, with its numbers written out."


@pytest.fixture
def call(client_with_key):
    def make(method, path="", body=None, client=None):
        made = getattr(client or client_with_key, method)
        return made(f"/event-types{path}", body, format="json", HTTP_REQUEST_ID=REQUEST_ID)

    return make


def shown(event_type):
    event_type.refresh_from_db()
    return {
        "name": event_type.name,
        "description": event_type.description,
        "schema": event_type.schema,
        "example": event_type.example,
        "deprecated": event_type.deprecated,
        "validation": event_type.validation,
        "created_at": rfc3339(event_type.created_at),
        "updated_at": rfc3339(event_type.updated_at),
    }


def test_it_describes_an_event_type(call):
    described = {
        "name": "invoice.paid",
        "description": "An invoice was paid.",
        "schema": SCHEMA,
        "example": {"total": 5},
        "deprecated": True,
        "validation": "warn",
    }
    answer = call("post", body=described)
    [event_type] = EventType.objects.all()
    assert answer.status_code == 201
    assert answer["Location"] == "/event-types/invoice.paid"
    assert answer.json() == shown(event_type)
    assert {name: answer.json()[name] for name in described} == described
    assert call("get", "/invoice.paid").json() == shown(event_type)


def test_a_name_is_enough(call):
    answer = call("post", body={"name": "a"})
    [event_type] = EventType.objects.all()
    assert answer.status_code == 201
    assert answer.json() == shown(event_type)
    assert (event_type.schema, event_type.example, event_type.validation) == (None, None, "off")


NOT_ENFORCEABLE = "Without a schema nothing can be enforced. Give a schema, or set validation to off."
NOT_A_TYPE = "An event type has letters, digits, _ and -, in segments joined by dots."


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, ("/name", "required", "This field is required.")),
        ({"name": "a b"}, ("/name", "invalid_event_type", NOT_A_TYPE)),
        (
            {"name": "a", "validation": "strict"},
            ("/validation", "invalid_choice", '"strict" is not a valid choice.'),
        ),
        ({"name": "a", "validation": "enforce"}, ("/validation", "no_schema", NOT_ENFORCEABLE)),
        ({"name": "a", "validation": "enforce", "schema": None}, ("/validation", "no_schema", NOT_ENFORCEABLE)),
        ({"name": "a", "scheme": {}}, ("/scheme", "unknown", "This field is not known.")),
        ({"name": "a", "schema": True}, ("/schema", "invalid_schema", "A schema is a JSON object.")),
        (
            {"name": "a", "schema": {"properties": {"a": {"minimum": "x"}}}},
            ("/schema", "invalid_schema", '/properties/a/minimum: "x" is not of type "number"'),
        ),
        (
            {"name": "a", "schema": {"$ref": "http://example.com/a.json"}},
            ("/schema", "invalid_schema", "The reference http://example.com/a.json leads out of the schema."),
        ),
        (
            {"name": "a", "schema": SCHEMA, "example": {"total": "5"}},
            ("/example", "does_not_fit", '/total: "5" is not of type "integer"'),
        ),
        ({"name": "a", "example": "a\0b"}, ("/example", "invalid_json", "This JSON has a NUL character in it.")),
        (
            {"name": "a", "example": ["x" * 66_000]},
            ("/example", "invalid_json", TOO_LONG),
        ),
        (
            {"name": "a", "schema": {"pattern": "(a|b)" * 20_000}},
            ("/schema", "invalid_json", TOO_LONG),
        ),
        ({"name": "a", "example": [1e308] * 300}, ("/example", "invalid_json", TOO_LONG)),
        ({"name": "a", "schema": {"enum": [-1e-300] * 300}}, ("/schema", "invalid_json", TOO_LONG)),
    ],
)
def test_it_refuses_what_makes_no_sense(call, body, error):
    answer = call("post", body=body)
    assert (answer.status_code, answer.json()) == (400, invalid(error))
    assert not EventType.objects.exists()


def test_a_text_that_only_looks_like_a_nul_is_taken(call):
    assert call("post", body={"name": "a", "example": r"a\u0000b"}).json()["example"] == r"a\u0000b"


NAME_TAKEN = problem(409, "event_type_exists", "There is an event type of this name. Change that one with PATCH.")


def test_it_refuses_a_name_that_is_taken(call):
    before = shown(EventType.objects.create(name="a", description="The first."))
    answer = call("post", body={"name": "a", "description": "The second."})
    assert (answer.status_code, answer.json()) == (409, NAME_TAKEN)
    assert shown(EventType.objects.get()) == before
    assert not AuditEntry.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_two_calls_at_once_with_one_name_the_second_is_refused(call):
    answers = []

    def describe_too():
        with contextlib.closing(connection):
            answers.append(call("post", body={"name": "a"}))

    late = threading.Thread(target=describe_too)
    with transaction.atomic():
        EventType.objects.create(name="a")
        late.start()
        _wait_until_it_waits_for_us(late)
    late.join()
    [answer] = answers
    assert (answer.status_code, answer.json()) == (409, NAME_TAKEN)


def _wait_until_it_waits_for_us(thread):
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    with connection.cursor() as cursor:
        while thread.is_alive() and not cursor.execute(waiting).fetchone():
            continue


@pytest.mark.parametrize(
    ("before", "change", "pointer"),
    [
        ({"schema": SCHEMA, "validation": "enforce"}, {"schema": None}, "/schema"),
        ({"schema": SCHEMA, "validation": "warn"}, {"schema": None, "validation": "enforce"}, "/validation"),
        ({"schema": None, "validation": "off"}, {"validation": "enforce"}, "/validation"),
    ],
)
def test_a_change_leaves_no_validation_enforced_without_a_schema(call, before, change, pointer):
    EventType.objects.create(name="a", **before)
    answer = call("patch", "/a", change)
    assert (answer.status_code, answer.json()) == (400, invalid((pointer, "no_schema", NOT_ENFORCEABLE)))
    assert EventType.objects.values("schema", "validation").get() == before


def test_it_records_what_was_described_and_changed(call):
    call("post", body={"name": "a", "description": "Paid."})
    call("patch", "/a", {"description": "More."})
    call("patch", "/a", {"description": "More."})
    added, changed = AuditEntry.objects.filter(object_kind="event type").order_by("id")
    [event_type] = EventType.objects.all()
    assert [added.object_id, changed.object_id] == [str(event_type.pk)] * 2
    assert (added.action, added.after["name"], added.after["description"]) == ("add", "a", "Paid.")
    assert (changed.action, changed.before["description"]) == ("change", "Paid.")
    assert changed.after["description"] == "More."


def test_it_changes_the_fields_given(call):
    event_type = EventType.objects.create(name="a", schema=SCHEMA, example={"total": 1})
    event_type.refresh_from_db()
    before = event_type.updated_at
    answer = call("patch", "/a", {"description": "More.", "validation": "enforce"})
    assert answer.status_code == 200
    assert answer.json() == shown(event_type)
    assert (event_type.description, event_type.validation, event_type.schema) == ("More.", "enforce", SCHEMA)
    assert event_type.updated_at > before
    without = {"schema": None, "example": None, "validation": "off"}
    assert call("patch", "/a", without).json()["schema"] is None


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": "b"}, ("/name", "read_only", "The name of an event type cannot be changed.")),
        ({"example": {}}, ("/example", "does_not_fit", '"total" is a required property')),
        (
            {"schema": {"type": "array"}},
            ("/example", "does_not_fit", '{"total":1} is not of type "array"'),
        ),
    ],
)
def test_it_refuses_changes_that_make_no_sense(call, change, error):
    event_type = EventType.objects.create(name="a", schema=SCHEMA, example={"total": 1})
    before = shown(event_type)
    answer = call("patch", "/a", change)
    assert (answer.status_code, answer.json()) == (400, invalid(error))
    assert shown(event_type) == before


def test_one_that_is_not_there_is_not_found(call):
    for method in ("get", "patch"):
        answer = call(method, "/invoice.paid", {} if method == "patch" else None)
        assert (answer.status_code, answer.json()) == (
            404,
            problem(404, "not_found", "There is no such thing here."),
        )


def test_it_lists_them_newest_first_and_filters_them(call):
    first = EventType.objects.create(name="a", deprecated=True)
    second = EventType.objects.create(name="b", validation="warn")
    assert call("get").json() == {"next": None, "previous": None, "results": [shown(second), shown(first)]}

    def names(query):
        return [one["name"] for one in call("get", f"?{query}").json()["results"]]

    assert names("deprecated=true") == ["a"]
    assert names("deprecated=false") == ["b"]
    assert names("validation=warn") == ["b"]
    assert names("limit=1") == ["b"]
    refused = call("get", "?name=a")
    assert refused.json() == invalid(("/name", "unknown", "This parameter is not known."))
    refused = call("get", "?deprecated=")
    assert refused.json() == invalid(("/deprecated", "invalid", "Must be a valid boolean."))


def test_a_list_takes_as_many_queries_for_many_as_for_one(call):
    counts = []
    for _ in range(2):
        EventType.objects.create(name=f"first.{len(counts)}")
        with CaptureQueriesContext(connection) as queries:
            call("get")
        counts.append(len(queries))
        EventType.objects.bulk_create([EventType(name=f"a{n}") for n in range(5) if len(counts) == 1])
    assert counts == [6, 6]  # the API key, the note of its use; the list within its time limit, a savepoint here


def test_every_tenant_reads_them_and_only_operators_write(call, make_client):
    EventType.objects.create(name="a")
    tenant = make_client(tenant="acme")
    assert call("get", client=tenant).status_code == call("get", "/a", client=tenant).status_code == 200
    for method, path, body in (("post", "", {"name": "b"}), ("patch", "/a", {"deprecated": True})):
        answer = call(method, path, body, client=tenant)
        detail = "An API key that is bound to a tenant cannot change event types."
        assert (answer.status_code, answer.json()) == (403, problem(403, "permission_denied", detail))
        assert call(method, path, body, client=make_client("read", "publish")).status_code == 403
    assert call("get", client=make_client("manage", "publish")).status_code == 403
    assert shown(EventType.objects.get())["deprecated"] is False
