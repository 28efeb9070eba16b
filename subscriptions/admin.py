"""The operator's pages for subscriptions."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html

from subscriptions import event_types, secrets
from subscriptions.api_key_admin import ApiKeyAdmin as ApiKeyAdmin
from subscriptions.audited_admin import AuditedAdmin, perform
from subscriptions.credentials import UNREADABLE
from subscriptions.event_type_admin import EventTypeAdmin as EventTypeAdmin
from subscriptions.form_fields import FORM_FIELDS
from subscriptions.models import Subscription, SubscriptionQuerySet
from subscriptions.read_only_admin import shown_time
from subscriptions.subscription_forms import NewSubscriptionForm, SubscriptionForm
from subscriptions.visible import visible


class TroubleFilter(admin.SimpleListFilter):
    """Answers whose receivers are not well."""

    title = "trouble"
    parameter_name = "trouble"
    signs = {
        "failing": ("Nothing but failures", "failing_since"),
        "circuit": ("Circuit not closed", "circuit_opened_at"),
    }

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [(key, label) for key, (label, _) in self.signs.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        _, since = self.signs.get(self.value() or "", ("", None))
        return queryset if since is None else queryset.filter(**{f"{since}__isnull": False})


# What the button on a subscription's page does; disabling it, which refuses ingest calls, is left to the list.
BUTTONS = {
    Subscription.Status.ACTIVE: "pause",
    Subscription.Status.PAUSED: "resume",
    Subscription.Status.DISABLED: "enable",
}

# They are locked while each is recorded, and workers wait for them: twice as many take seconds, and ten times as
# many longer than the database lets a transaction idle.
MOST_AT_ONCE = 1_000
TOO_MANY = (
    f"Nothing was changed: more than {MOST_AT_ONCE:,} are selected. Narrow the list, or select page by page."
)

# In the list: 250 long ones, of each of a hundred subscriptions, would be a page of megabytes.
TYPES_SHOWN = 10


@admin.register(Subscription)
class SubscriptionAdmin(AuditedAdmin):
    form = SubscriptionForm
    formfield_overrides = FORM_FIELDS
    list_display = (
        "shown_target_url",
        "shown_description",
        "shown_tenant",
        "status",
        "circuit",
        "shown_event_types",
        "created_at",
    )
    list_filter = ("status", TroubleFilter)
    show_full_result_count = False
    search_fields = ("target_url", "description", "tenant", "id__exact")
    search_help_text = "Part of a target URL, description or tenant, or a whole id."
    actions = ("pause", "resume", "disable", "enable", "open_circuit", "close_circuit")
    readonly_fields = (
        "id",
        "shown_tenant",
        "status",
        "status_reason",
        "circuit",
        "circuit_opened_at",
        "circuit_probe_at",
        "failing_since",
        "will_be_disabled_at",
        "secret_hint",
        "previous_secret_until",
        "shown_secret_headers",
        "shown_auth",
        "created_at",
        "updated_at",
    )

    new_fields = (
        "target_url",
        "description",
        "tenant",
        "metadata",
        "event_types",
        "filter",
        "secret",
        "headers",
        "secret_headers",
        "auth",
        "ca_certificates",
        "retry_schedule",
        "timeout_seconds",
        "max_in_flight",
        "rate_limit",
        "ordered",
    )
    sealed_fields = ("secret_headers", "auth")
    # A subscription stays with its tenant, whose its requests are.
    changeable_fields = tuple(field for field in new_fields if field not in ("tenant", "secret"))

    def get_fieldsets(self, request: HttpRequest, obj: Subscription | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": self.new_fields})]
        settings = (*self.changeable_fields, "seen")
        if not self.has_change_permission(request, obj):
            # Of what is encrypted its state tells; here it would be shown as it is stored.
            settings = tuple(field for field in self.changeable_fields if field not in self.sealed_fields)
        return [("State", {"fields": self.readonly_fields}), ("Settings", {"fields": settings})]

    def get_form(
        self,
        request: HttpRequest,
        obj: Subscription | None = None,
        change: bool = False,  # noqa: FBT001, FBT002 - Django's signature
        **kwargs: Any,
    ) -> Any:
        # What is encrypted is a text in the form; the model's field of that name is not for forms.
        kwargs["fields"] = [field for field in self.changeable_fields if field not in self.sealed_fields]
        if obj is None:
            kwargs["fields"].append("tenant")
            kwargs["form"] = NewSubscriptionForm
        return super().get_form(request, obj, change, **kwargs)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).filter(deleted_at=None)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        if context["original"] is not None:
            button = BUTTONS[context["original"].status]
            context["button"] = button if button in self.get_actions(request) else None
        return super().render_change_form(request, context, *args, **kwargs)

    def has_delete_permission(self, request: HttpRequest, obj: Subscription | None = None) -> bool:
        # Its requests and attempts are history; it is disabled instead.
        return False

    def save_model(self, request: HttpRequest, obj: Subscription, form: Any, change: bool) -> None:  # noqa: FBT001 - Django's signature
        if change:
            # Only what was edited: its status may have changed while the form was open.
            form.seal(obj)
            obj.save(update_fields=form.changed_data)
            return
        form.seal(obj)
        secret = form.cleaned_data["secret"] or secrets.make()
        obj.set_secret(secret)
        obj.save()
        told = format_html("Its secret is <code>{}</code>. Copy it now: it is never shown again.", visible(secret))
        self.message_user(request, told, messages.WARNING)

    @admin.display(description="target URL", ordering="target_url")
    def shown_target_url(self, subscription: Subscription) -> str:
        return visible(subscription.target_url)

    @admin.display(description="tenant", ordering="tenant")
    def shown_tenant(self, subscription: Subscription) -> str:
        return visible(subscription.tenant)

    @admin.display(description="description", ordering="description")
    def shown_description(self, subscription: Subscription) -> str:
        return visible(subscription.description)

    @admin.display(description="will be disabled at")
    def will_be_disabled_at(self, subscription: Subscription) -> str:
        return shown_time(subscription.disable_at)

    @admin.display(description="secret headers")
    def shown_secret_headers(self, subscription: Subscription) -> str:
        names = subscription.secret_header_names
        return UNREADABLE if names is None else ", ".join(names) or "none"

    @admin.display(description="auth")
    def shown_auth(self, subscription: Subscription) -> str:
        return subscription.auth_type or "none"

    @admin.display(description="event types")
    def shown_event_types(self, subscription: Subscription) -> str:
        return event_types.in_words(subscription.event_types, most=TYPES_SHOWN) or "every event"

    def has_operate_permission(self, request: HttpRequest) -> bool:
        may_operate = request.user.has_perm("subscriptions.operate_subscription")
        return may_operate and self.has_view_permission(request)

    @admin.action(description="Pause selected %(verbose_name_plural)s", permissions=["operate"])
    def pause(self, request: HttpRequest, queryset: SubscriptionQuerySet) -> HttpResponse | None:
        return self._move(request, queryset, "pause", "Paused", operation=SubscriptionQuerySet.pause)

    @admin.action(description="Resume selected %(verbose_name_plural)s", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: SubscriptionQuerySet) -> HttpResponse | None:
        return self._move(request, queryset, "resume", "Resumed", operation=SubscriptionQuerySet.resume)

    @admin.action(description="Disable selected %(verbose_name_plural)s", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: SubscriptionQuerySet) -> HttpResponse | None:
        def disable(rows: SubscriptionQuerySet) -> int:
            return rows.disable("disabled by an operator")

        return self._move(request, queryset, "disable", "Disabled", operation=disable)

    @admin.action(description="Enable selected %(verbose_name_plural)s", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: SubscriptionQuerySet) -> HttpResponse | None:
        return self._move(request, queryset, "enable", "Enabled", operation=SubscriptionQuerySet.enable)

    @admin.action(description="Open the circuit of selected %(verbose_name_plural)s", permissions=["operate"])
    def open_circuit(self, request: HttpRequest, queryset: SubscriptionQuerySet) -> HttpResponse | None:
        verb = "Opened the circuit of"
        return self._move(request, queryset, "open circuit", verb, operation=SubscriptionQuerySet.open_circuit)

    @admin.action(description="Close the circuit of selected %(verbose_name_plural)s", permissions=["operate"])
    def close_circuit(self, request: HttpRequest, queryset: SubscriptionQuerySet) -> HttpResponse | None:
        verb = "Closed the circuit of"
        return self._move(request, queryset, "close circuit", verb, operation=SubscriptionQuerySet.close_circuit)

    def _move(
        self,
        request: HttpRequest,
        selected: SubscriptionQuerySet,
        action: str,
        verb: str,
        *,
        operation: Callable[[SubscriptionQuerySet], int],
    ) -> HttpResponse | None:
        """Move subscriptions, and lead to the page of a single one; None leads back to the list."""
        ids = list(selected.values_list("id", flat=True)[: MOST_AT_ONCE + 1])
        if len(ids) > MOST_AT_ONCE:
            self.message_user(request, TOO_MANY, messages.ERROR)
            return None
        changed = perform(request, action, selected.existing(), operation=operation)
        self.message_user(request, f"{verb} {changed} of {len(ids)} selected subscriptions.")
        if len(ids) != 1:
            return None
        return HttpResponseRedirect(reverse("admin:subscriptions_subscription_change", args=ids))
