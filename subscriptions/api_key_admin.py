"""The operator's pages for API keys."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html

from subscriptions.api_keys import ApiKey, ApiKeyQuerySet
from subscriptions.audited_admin import AuditedAdmin, confirmation_page, perform
from subscriptions.form_fields import ExactCharField
from subscriptions.visible import visible

MAX_DAYS = 36_500


class NewApiKeyForm(forms.ModelForm):
    scopes = forms.MultipleChoiceField(
        choices=ApiKey.Scope.choices,
        widget=forms.CheckboxSelectMultiple,
        help_text="What the key may do: publish events, read everything, manage subscriptions.",
    )
    expires_in_days = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=MAX_DAYS,
        help_text="Empty: it never expires, and has to be revoked.",
    )

    class Meta:
        model = ApiKey
        fields = ("name", "scopes", "tenant")
        field_classes = {"tenant": ExactCharField}
        help_texts = {"tenant": "The one customer whose data the key sees. Empty: it sees every customer's."}


@admin.register(ApiKey)
class ApiKeyAdmin(AuditedAdmin):
    """Keys are made and shown once, seen and revoked. Nothing of a key is changed: who holds it relies on it."""

    form = NewApiKeyForm

    list_display = ("name", "prefix", "shown_scopes", "tenant", "expires_at", "last_used_at", "revoked_at")
    search_fields = ("name", "prefix", "tenant")
    show_full_result_count = False
    fields = ("id", *list_display, "created_at")
    actions = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return ("name", "scopes", "tenant", "expires_in_days") if obj is None else self.fields

    def get_form(
        self,
        request: HttpRequest,
        obj: ApiKey | None = None,
        change: bool = False,  # noqa: FBT001, FBT002 - Django's signature
        **kwargs: Any,
    ) -> Any:
        # The days are a field of the form alone.
        return super().get_form(request, obj, change, **kwargs | {"fields": ("name", "scopes", "tenant")})

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:  # noqa: FBT001 - Django's signature
        days = form.cleaned_data["expires_in_days"]
        key, text = ApiKey.objects.create_key(
            form.cleaned_data["name"],
            form.cleaned_data["scopes"],
            tenant=form.cleaned_data["tenant"] or None,
            valid_for=None if days is None else timedelta(days=days),
        )
        obj.pk = key.pk
        obj.refresh_from_db()
        told = format_html("The API key is <code>{}</code>. Copy it now: it is never shown again.", text)
        self.message_user(request, told, messages.WARNING)

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return super().has_change_permission(request)

    @admin.display(description="scopes")
    def shown_scopes(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.action(description="Revoke selected %(verbose_name_plural)s", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: ApiKeyQuerySet) -> HttpResponse | None:
        keys = list(queryset.filter(revoked_at=None))
        if not keys:
            self.message_user(request, "These API keys are revoked already.", messages.WARNING)
            return None
        if "confirmed" not in request.POST:
            return confirmation_page(
                self,
                request,
                title="Revoke API keys?",
                sentences=(
                    "Whoever uses these keys is refused from now on. A revoked key cannot be brought back.",
                    *(visible(str(key)) for key in keys),
                ),
                action="revoke",
                ids=[key.id for key in keys],
                button="Revoke",
            )
        revoked = perform(request, "revoke", queryset, operation=ApiKeyQuerySet.revoke)
        self.message_user(request, f"Revoked {revoked} API key{'' if revoked == 1 else 's'}.")
        return None
