"""The pages of the audit log: who changed or did what. Nobody edits or deletes it, here or past here."""

import json
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet, Value
from django.http import HttpRequest
from django.urls import NoReverseMatch

from subscriptions.audit import AuditEntry
from subscriptions.read_only_admin import NOTHING, ReadOnlyAdmin, TimeFilter, link, preformatted
from subscriptions.visible import visible

# The pages of what entries are about.
PAGES = {
    "subscription": "admin:subscriptions_subscription_change",
    "event type": "admin:subscriptions_eventtype_change",
    "API key": "admin:subscriptions_apikey_change",
    "webhook request": "admin:deliveries_webhookrequest_change",
    "operation": "admin:deliveries_operation_change",
    "user": "admin:auth_user_change",
}

# What is changed may have 65,536 bytes a field, and very much more when it is indented.
MAX_READABLE_LENGTH = 1_000_000


class RecordedFilter(TimeFilter):
    title = "recorded"
    field = "recorded_at"


class KindFilter(admin.SimpleListFilter):
    """Answers what was done to subscriptions, for instance, or to people."""

    title = "object"
    parameter_name = "kind"
    kinds = ("subscription", "webhook request", "operation", "event type", "API key", "user", "queue")

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [(kind, kind) for kind in self.kinds]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset if self.value() is None else queryset.filter(object_kind=self.value())


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ("recorded_at", "shown_actor", "action", "object_kind", "shown_object_id", "address")
    list_filter = (RecordedFilter, "actor_kind", KindFilter)
    linked_lookups = frozenset({"object_id__exact"})
    search_help_text = "Exactly: an actor, an action, an address, or the id of an object or of a request."
    fields = (
        "recorded_at",
        "actor_kind",
        "shown_actor",
        "action",
        "object_kind",
        "shown_object_id",
        "shown_before",
        "shown_after",
        "address",
        "request_id",
    )
    readonly_fields = fields

    def matching(self, term: str) -> Q:
        exactly = Q(actor=term) | Q(action=term) | Q(object_id=term) | Q(request_id=term)
        try:
            # Without its zone, as addresses are recorded; PostgreSQL takes none with one.
            return exactly | Q(address=str(ip_address(term.partition("%")[0])))
        except ValueError:
            return exactly

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the entries; each knows whether there are links to people for who looks."""
        return super().get_queryset(request).annotate(sees_people=Value(request.user.has_perm("auth.view_user")))

    @admin.display(description="actor")
    def shown_actor(self, entry: AuditEntry) -> str:
        return visible(entry.actor) or NOTHING

    @admin.display(description="object id")
    def shown_object_id(self, entry: AuditEntry) -> str:
        view = PAGES.get(entry.object_kind)
        is_closed = entry.object_kind == "user" and not getattr(entry, "sees_people", False)
        if view is not None and entry.object_id and not is_closed:
            with suppress(NoReverseMatch):  # the project's users may have no page, or be of another model
                return link(view, entry.object_id, entry.object_id)
        return visible(entry.object_id) or NOTHING

    @admin.display(description="before")
    def shown_before(self, entry: AuditEntry) -> str:
        return preformatted(_readable(entry.before))

    @admin.display(description="after")
    def shown_after(self, entry: AuditEntry) -> str:
        return preformatted(_readable(entry.after))


def _readable(fields: dict[str, Any]) -> str:
    """Return JSON indented, unless it grows beyond all bounds, with each line at a depth of hundreds."""
    indented = json.dumps(fields, indent=2, ensure_ascii=False)
    return indented if len(indented) <= MAX_READABLE_LENGTH else json.dumps(fields, ensure_ascii=False)
