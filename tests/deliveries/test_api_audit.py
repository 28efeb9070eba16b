"""Every call of the REST API that changes something leaves an entry in the audit log."""

from typing import Any

import pytest
from django.urls import include, path, resolve
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIClient
from rest_framework.views import APIView

from deliveries.bulk import Operation
from subscriptions.audit import AuditEntry
from subscriptions.authentication import HasScope
from subscriptions.ids import new_id
from subscriptions.models import ApiKey, Subscription

pytestmark = pytest.mark.django_db

# What callers send, which is no operator's doing.
PUBLISHING = {"/ingest", "/events", "/events/batch", "/events/preview"}

URL = "https://new.example.com/hook"


def changing_operations() -> list[tuple[str, str]]:
    """Return the method and the path of every operation that is not a GET, but for publishing."""
    paths = SchemaGenerator().get_schema(public=True)["paths"]
    return sorted(
        (method, route)
        for route, operations in paths.items()
        for method in operations
        if method in ("post", "put", "patch", "delete") and route not in PUBLISHING
    )


@pytest.fixture
def key(client_with_key: APIClient) -> ApiKey:
    return ApiKey.objects.get()


def only_entry() -> dict[str, Any]:
    entry = AuditEntry.objects.get()
    names = (
        "actor_kind",
        "actor",
        "action",
        "object_kind",
        "object_id",
        "before",
        "after",
        "address",
        "request_id",
    )
    return {name: getattr(entry, name) for name in names}


@pytest.mark.parametrize(("method", "route"), changing_operations())
def test_no_operation_can_be_forgotten(method, route):
    filled = route.replace("{", "").replace("}", "")
    for parameter in ("subscription_id", "request_id", "event_id", "recovery_id", "operation_id"):
        filled = filled.replace(parameter, str(new_id()))
    view = resolve(filled).func.cls
    scopes = getattr(view, "scopes", HasScope.default_scopes)
    # What ApiAuditMiddleware goes by.
    assert HasScope in view.permission_classes
    assert scopes.get(method.upper(), "manage") == "manage"


CHANGES = {
    ("pause", "active"): ({"reason": "moving"}, {"status": "paused", "status_reason": "moving"}),
    ("resume", "paused"): ({}, {"status": "active"}),
    ("enable", "disabled"): ({}, {"status": "active"}),
    ("disable", "active"): ({}, {"status": "disabled"}),
}


@pytest.mark.parametrize(("verb", "status"), CHANGES)
def test_it_records_what_a_verb_changes(client_with_key, key, make_subscription, verb, status):
    subscription = make_subscription(status=status)
    body, after = CHANGES[verb, status]
    answer = client_with_key.post(
        f"/subscriptions/{subscription.id}/{verb}", body, format="json", headers={"Request-Id": "mine"}
    )
    assert answer.status_code == 200
    assert only_entry() == {
        "actor_kind": "api_key",
        "actor": str(key),
        "action": verb,
        "object_kind": "subscription",
        "object_id": str(subscription.id),
        "before": {"status": status} | ({"status_reason": ""} if "status_reason" in after else {}),
        "after": after,
        "address": "127.0.0.1",
        "request_id": "mine",
    }


def test_it_records_a_new_subscription_without_its_secrets(client_with_key):
    body = {"target_url": URL, "secret": "my own secret", "secret_headers": {"X-Key": "hidden"}}
    answer = client_with_key.post("/subscriptions", body, format="json")
    assert answer.status_code == 201
    entry = only_entry()
    assert (entry["action"], entry["object_id"]) == ("add", answer.json()["id"])
    assert entry["after"]["target_url"] == URL
    assert (entry["after"]["secret"], entry["after"]["secret_headers"]) == ("changed", "changed")
    assert "my own" not in str(entry)
    assert "hidden" not in str(entry)


def test_it_records_a_change(client_with_key, make_subscription):
    subscription = make_subscription("https://old.example.com/")
    client_with_key.patch(f"/subscriptions/{subscription.id}", {"target_url": URL}, format="json")
    entry = only_entry()
    assert (entry["action"], entry["before"], entry["after"]) == (
        "change",
        {"target_url": "https://old.example.com/"},
        {"target_url": URL},
    )


def test_it_records_a_new_secret_as_that(client_with_key, make_subscription):
    subscription = make_subscription()
    client_with_key.post(f"/subscriptions/{subscription.id}/rotate-secret", {"secret": "password"}, format="json")
    entry = only_entry()
    assert entry["action"] == "rotate secret"
    assert (entry["after"]["secret"], entry["after"]["previous_secret"]) == ("changed", "changed")
    assert "password" not in str(entry)


def test_it_records_a_deletion(client_with_key, make_subscription):
    subscription = make_subscription()
    assert client_with_key.delete(f"/subscriptions/{subscription.id}").status_code == 204
    entry = only_entry()
    assert entry["action"] == "delete"
    assert entry["after"]["deleted_at"] is not None


def test_it_records_calls_without_a_key_in_development(settings, make_subscription):
    settings.DEBUG = True
    subscription = make_subscription()
    APIClient().post(f"/subscriptions/{subscription.id}/pause")
    entry = only_entry()
    assert (entry["actor_kind"], entry["actor"], entry["action"]) == ("nobody", "", "pause")


def test_it_records_no_call_that_is_refused_or_changes_nothing(client_with_key, make_client, make_subscription):
    subscription = make_subscription(status="paused", tenant="acme")
    url = f"/subscriptions/{subscription.id}"
    assert client_with_key.post(f"{url}/pause").status_code == 200
    assert client_with_key.patch(url, {"target_url": "nonsense"}, format="json").status_code == 400
    assert make_client("read").post(f"{url}/resume").status_code == 403
    assert make_client(tenant="other").post(f"{url}/resume").status_code == 404
    assert APIClient().post(f"{url}/resume").status_code in (401, 403)
    client_with_key.get(url)
    assert AuditEntry.objects.count() == 0


@pytest.mark.parametrize(
    ("verb", "before", "after"), [("replay", "failed", "pending"), ("cancel", "pending", "canceled")]
)
def test_it_records_what_becomes_of_a_request(
    client_with_key, make_subscription, make_request, verb, before, after
):
    settled = {"settled_at": timezone.now(), "next_attempt_at": None} if before == "failed" else {}
    request = make_request(make_subscription(), status=before, **settled)
    for _ in range(2):  # the second changes nothing
        client_with_key.post(f"/requests/{request.id}/{verb}")
    entry = only_entry()
    assert (entry["action"], entry["object_kind"], entry["object_id"]) == (
        verb,
        "webhook request",
        str(request.id),
    )
    assert (entry["before"]["status"], entry["after"]["status"]) == (before, after)
    assert "payload" not in entry["after"]


def test_it_records_that_an_operation_is_stopped(client_with_key):
    operation = Operation.objects.create(kind=Operation.Kind.REPLAY, tenant="acme")
    for _ in range(2):  # the second changes nothing
        client_with_key.post(f"/operations/{operation.id}/cancel")
    entry = only_entry()
    assert (entry["action"], entry["object_kind"], entry["object_id"]) == (
        "cancel",
        "operation",
        str(operation.id),
    )
    assert (entry["before"]["status"], entry["after"]["status"]) == ("pending", "canceled")


class ThingView(APIView):
    """An endpoint that records nothing by itself."""

    def post(self, request: Request, **ids: Any) -> Response:
        return Response({"id": "the-id-of-it", "given": request.data}, status=201)


things = [
    path("event-types", ThingView.as_view()),
    path("subscriptions/<uuid:subscription_id>/send-test", ThingView.as_view()),
]
urlpatterns = [*things, path("webhooks/v1/", include(things))]


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("prefix", ["/", "/webhooks/v1/"])
def test_it_records_what_a_view_has_not_recorded(client_with_key, key, prefix):
    row_id = new_id()
    body = {"name": "invoice.paid", "secret": "hidden", "body": {"large": "payload"}}
    client_with_key.post(f"{prefix}event-types", body, format="json")
    client_with_key.post(f"{prefix}subscriptions/{row_id}/send-test")
    made, tried = AuditEntry.objects.order_by("id")
    assert (made.actor, made.action, made.object_kind, made.object_id, made.after) == (
        str(key),
        "add",
        "event type",
        "the-id-of-it",
        {"name": "invoice.paid", "secret": "changed"},
    )
    assert (tried.action, tried.object_kind, tried.object_id) == ("send test", "subscription", str(row_id))


def test_the_change_and_the_entry_are_made_together_or_not_at_all(
    client_with_key, make_subscription, full_audit_log
):
    subscription = make_subscription()
    assert client_with_key.post(f"/subscriptions/{subscription.id}/pause").status_code == 500
    assert client_with_key.post("/subscriptions", {"target_url": URL}, format="json").status_code == 500
    operation = Operation.objects.create(kind=Operation.Kind.REPLAY, tenant="acme")
    assert client_with_key.post(f"/operations/{operation.id}/cancel").status_code == 500
    assert [row.status for row in Subscription.objects.all()] == ["active"]
    assert [row.status for row in Operation.objects.all()] == ["pending"]
