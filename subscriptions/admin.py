"""The operator's pages for subscriptions."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.postgres.forms import SimpleArrayField
from django.http import HttpRequest
from django.utils.html import format_html
from rest_framework import serializers

from subscriptions import secrets
from subscriptions.api_key_admin import ApiKeyAdmin as ApiKeyAdmin
from subscriptions.audited_admin import AuditedAdmin, perform
from subscriptions.credentials import UNREADABLE
from subscriptions.event_type_admin import EventTypeAdmin as EventTypeAdmin
from subscriptions.event_types import MAX_LENGTH
from subscriptions.fields import AuthField, CertificatesField, FilterField, HeadersField
from subscriptions.form_fields import JSON_FIELDS, FreshForm, StrictJSONField
from subscriptions.models import (
    LONGEST_RETRY_DELAY_SECONDS,
    MAX_EVENT_TYPES,
    MAX_RETRIES,
    Subscription,
    SubscriptionQuerySet,
)
from subscriptions.read_only_admin import shown_time
from subscriptions.validation import validate_event_type_pattern, validate_secret
from subscriptions.visible import visible

WIDE = {"class": "vLargeTextField"}
SECRET_TEXT = forms.Textarea(attrs=WIDE | {"rows": 3, "autocomplete": "off"})


class SubscriptionForm(FreshForm):
    # Written out, because the fields that Django would make do not say what is wrong with an item.
    event_types = SimpleArrayField(
        forms.CharField(max_length=MAX_LENGTH, validators=[validate_event_type_pattern]),
        required=False,
        max_length=MAX_EVENT_TYPES,
        widget=forms.TextInput(attrs=WIDE),
        help_text="Separated by commas: names (invoice.paid), wildcards (invoice.*) or *. None means every event.",
    )
    retry_schedule = SimpleArrayField(
        forms.IntegerField(min_value=1, max_value=LONGEST_RETRY_DELAY_SECONDS),
        required=False,
        max_length=MAX_RETRIES,
        widget=forms.TextInput(attrs=WIDE),
        help_text="Seconds to wait after each failed attempt, separated by commas. None means a single attempt.",
    )

    filter = StrictJSONField(
        required=False,
        help_text='Which of the events of these types are wanted, in JSON: {"body": {"total": {"$gte": 100}}}. '
        "Empty or null: all.",
    )
    headers = StrictJSONField(required=False, help_text='Extra headers to send, in JSON: {"X-Route": "a"}.')
    secret_headers = StrictJSONField(
        required=False,
        widget=SECRET_TEXT,
        help_text="Extra headers whose values are never shown, in JSON. Empty keeps what there is; {} removes it.",
    )
    auth = StrictJSONField(
        required=False,
        widget=SECRET_TEXT,
        help_text='How calls authenticate to the receiver, in JSON: {"type": "bearer", "token": "…"}. '
        "Never shown. Empty keeps what there is; {} removes it.",
    )

    class Meta:
        model = Subscription
        fields = "__all__"  # the admin lists the fields
        labels = {"target_url": "Target URL", "ca_certificates": "CA certificates"}
        widgets = {"target_url": forms.TextInput(attrs=WIDE)}

    def clean_filter(self) -> Any:
        return _checked(FilterField(allow_null=True), self.cleaned_data["filter"])

    def clean_headers(self) -> Any:
        return _checked(HeadersField(), self.cleaned_data["headers"] or {})

    def clean_secret_headers(self) -> Any:
        return _checked(HeadersField(), self.cleaned_data["secret_headers"] or {})

    def clean_auth(self) -> Any:
        return _checked(AuthField(allow_null=True), self.cleaned_data["auth"] or None)

    def clean_ca_certificates(self) -> Any:
        return _checked(CertificatesField(), self.cleaned_data["ca_certificates"])

    def seal(self, subscription: Subscription) -> None:
        """Encrypt what was given of the fields that are never shown into the subscription, unsaved."""
        if "secret_headers" in self.changed_data:
            subscription.set_secret_headers(self.cleaned_data["secret_headers"])
        if "auth" in self.changed_data:
            subscription.set_auth(self.cleaned_data["auth"])


def _checked(field: serializers.Field, value: Any) -> Any:
    """Return what the API would make of `value`; raise forms.ValidationError in its words."""
    try:
        return field.run_validation(value)
    except serializers.ValidationError as error:
        raise forms.ValidationError(_words(error.detail)) from None


def _words(detail: Any) -> list[str]:
    if isinstance(detail, dict):
        return [f"{name}: {words}" for name, each in detail.items() for words in _words(each)]
    return [str(words) for words in detail]


class NewSubscriptionForm(SubscriptionForm):
    secret = forms.CharField(
        required=False,
        strip=False,
        max_length=secrets.MAX_LENGTH,
        validators=[validate_secret],
        widget=forms.TextInput(attrs=WIDE | {"autocomplete": "off"}),
        help_text="Signs ingest calls and deliveries. Leave it empty to have one made.",
    )


@admin.register(Subscription)
class SubscriptionAdmin(AuditedAdmin):
    form = SubscriptionForm
    formfield_overrides = JSON_FIELDS
    list_display = (
        "shown_target_url",
        "shown_description",
        "shown_tenant",
        "status",
        "circuit",
        "shown_event_types",
        "created_at",
    )
    list_filter = ("status",)
    show_full_result_count = False
    search_fields = ("target_url", "description", "tenant", "id__exact")
    search_help_text = "Part of a target URL, description or tenant, or a whole id."
    actions = ("pause", "resume", "disable", "enable", "open_circuit", "close_circuit")
    readonly_fields = (
        "id",
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
    changeable_fields = tuple(field for field in new_fields if field != "secret")

    def get_fields(self, request: HttpRequest, obj: Subscription | None = None) -> Any:
        if obj is None:
            return self.new_fields
        shown = (*self.changeable_fields, *self.readonly_fields)
        return (*shown, "seen") if self.has_change_permission(request, obj) else shown

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
            kwargs["form"] = NewSubscriptionForm
        return super().get_form(request, obj, change, **kwargs)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).filter(deleted_at=None)

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
        return ", ".join(subscription.event_types) or "every event"

    def has_operate_permission(self, request: HttpRequest) -> bool:
        may_operate = request.user.has_perm("subscriptions.operate_subscription")
        return may_operate and self.has_view_permission(request)

    @admin.action(description="Pause selected %(verbose_name_plural)s", permissions=["operate"])
    def pause(self, request: HttpRequest, queryset: SubscriptionQuerySet) -> None:
        self._move(request, queryset, "pause", "Paused", operation=SubscriptionQuerySet.pause)

    @admin.action(description="Resume selected %(verbose_name_plural)s", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: SubscriptionQuerySet) -> None:
        self._move(request, queryset, "resume", "Resumed", operation=SubscriptionQuerySet.resume)

    @admin.action(description="Disable selected %(verbose_name_plural)s", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: SubscriptionQuerySet) -> None:
        def disable(rows: SubscriptionQuerySet) -> int:
            return rows.disable("disabled by an operator")

        self._move(request, queryset, "disable", "Disabled", operation=disable)

    @admin.action(description="Enable selected %(verbose_name_plural)s", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: SubscriptionQuerySet) -> None:
        self._move(request, queryset, "enable", "Enabled", operation=SubscriptionQuerySet.enable)

    @admin.action(description="Open the circuit of selected %(verbose_name_plural)s", permissions=["operate"])
    def open_circuit(self, request: HttpRequest, queryset: SubscriptionQuerySet) -> None:
        verb = "Opened the circuit of"
        self._move(request, queryset, "open circuit", verb, operation=SubscriptionQuerySet.open_circuit)

    @admin.action(description="Close the circuit of selected %(verbose_name_plural)s", permissions=["operate"])
    def close_circuit(self, request: HttpRequest, queryset: SubscriptionQuerySet) -> None:
        verb = "Closed the circuit of"
        self._move(request, queryset, "close circuit", verb, operation=SubscriptionQuerySet.close_circuit)

    def _move(
        self,
        request: HttpRequest,
        selected: SubscriptionQuerySet,
        action: str,
        verb: str,
        *,
        operation: Callable[[SubscriptionQuerySet], int],
    ) -> None:
        count = selected.count()
        changed = perform(request, action, selected.existing(), operation=operation)
        self.message_user(request, f"{verb} {changed} of {count} selected subscriptions.")
