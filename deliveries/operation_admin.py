"""The operator's page for recovers and bulk replays: how far they have come, and a stop."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from deliveries.bulk import Operation, OperationQuerySet
from subscriptions.audited_admin import confirmation_page, perform
from subscriptions.read_only_admin import NOTHING, ReadOnlyAdmin, parse_id
from subscriptions.visible import visible


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin):
    list_display = (
        "id",
        "kind",
        "shown_tenant",
        "status",
        "progress",
        "shown_requester",
        "created_at",
        "finished_at",
    )
    list_filter = ("status", "kind")
    search_help_text = "An operation's id, or a whole tenant."
    actions = ("cancel",)
    fields = (
        "id",
        "kind",
        "shown_tenant",
        "shown_selection",
        "status",
        "status_reason",
        "progress",
        "shown_requester",
        "created_at",
        "started_at",
        "finished_at",
    )
    readonly_fields = fields

    def matching(self, term: str) -> Q:
        operation_id = parse_id(term)
        return Q(tenant=term) if operation_id is None else Q(id=operation_id)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        operation = context["original"]
        context["may_stop"] = operation.is_active and self.has_cancel_permission(request)
        return super().render_change_form(request, context, *args, **kwargs)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Whoever may start a replay may stop it."""
        return self.has_view_permission(request) and request.user.has_perm("deliveries.replay_webhookrequest")

    @admin.action(description="Stop selected %(verbose_name_plural)s", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: OperationQuerySet) -> HttpResponse | None:
        """Stop operations that are not over, once it is confirmed."""
        active = queryset.active()
        ids = list(active.values_list("id", flat=True))
        if not ids:
            self.message_user(request, "None of these is still running.", messages.ERROR)
            return None
        if "confirmed" not in request.POST:
            sentence = "What they have brought back is delivered all the same; the rest stays as it is."
            return confirmation_page(
                self, request, title="Stop?", sentences=[sentence], action="cancel", ids=ids, button="Stop"
            )
        stopped = perform(request, "cancel", active, operation=stop)
        self.message_user(request, f"Stopped {stopped} operation{'' if stopped == 1 else 's'}.")
        return (
            HttpResponseRedirect(reverse("admin:deliveries_operation_change", args=ids)) if len(ids) == 1 else None
        )

    @admin.display(description="progress")
    def progress(self, operation: Operation) -> str:
        if operation.total is None:
            return NOTHING
        return f"{operation.done} of {operation.total}"

    @admin.display(description="tenant")
    def shown_tenant(self, operation: Operation) -> str:
        return "every tenant" if operation.tenant is None else visible(operation.tenant)

    @admin.display(description="requested by")
    def shown_requester(self, operation: Operation) -> str:
        return visible(operation.requested_by) or NOTHING

    @admin.display(description="selection")
    def shown_selection(self, operation: Operation) -> str:
        given: dict[str, Any] = operation.selection
        return visible(", ".join(f"{name}: {_in_words(value)}" for name, value in given.items()))


def _in_words(value: Any) -> str:
    return " or ".join(value) if isinstance(value, list) else str(value)


def stop(operations: OperationQuerySet) -> int:
    return operations.cancel()
