"""The operator's pages for event types."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from subscriptions.audited_admin import AuditedAdmin
from subscriptions.catalog import EventType
from subscriptions.form_fields import FORM_FIELDS, FreshForm


@admin.register(EventType)
class EventTypeAdmin(AuditedAdmin):
    form = FreshForm
    formfield_overrides = FORM_FIELDS
    list_display = ("name", "validation", "deprecated", "has_schema", "updated_at")
    list_filter = ("validation", "deprecated")
    search_fields = ("name",)
    search_help_text = "Part of a name."
    ordering = ("name",)
    show_full_result_count = False
    fields = (
        "name",
        "description",
        "schema",
        "validation",
        "example",
        "deprecated",
        "created_at",
        "updated_at",
    )
    readonly_fields = ("created_at", "updated_at")

    def get_fields(self, request: HttpRequest, obj: EventType | None = None) -> Any:
        is_changed = obj is not None and self.has_change_permission(request, obj)
        return (*self.fields, "seen") if is_changed else self.fields

    def get_readonly_fields(self, request: HttpRequest, obj: EventType | None = None) -> tuple[str, ...]:
        # Whoever publishes under the name would publish something that is not described any more.
        return self.readonly_fields if obj is None else ("name", *self.readonly_fields)

    def has_delete_permission(self, request: HttpRequest, obj: EventType | None = None) -> bool:
        # What was published under the name stays; it is deprecated instead.
        return False

    @admin.display(boolean=True, description="schema")
    def has_schema(self, event_type: EventType) -> bool:
        return event_type.schema is not None
