"""The pages of the people who may log in to the console."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import UserChangeForm
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.crypto import salted_hmac
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from subscriptions import audit
from subscriptions.audited_admin import AuditedAdmin
from subscriptions.form_fields import FreshForm


class PersonForm(FreshForm, UserChangeForm):
    """Give nobody back, with what an older page says, the access that was taken away meanwhile."""

    @staticmethod
    def state_of(row: Any) -> str:
        """Return a digest of what people may change: users have no `updated_at`."""
        return salted_hmac("state of a user", repr(audit.snapshot(row)), algorithm="sha256").hexdigest()


class PersonAdmin(AuditedAdmin, UserAdmin):
    """What somebody may do is said by the roles; only superusers touch superusers."""

    form = PersonForm
    list_display = ("username", "email", "is_active", "is_staff", "is_superuser", "last_login")
    list_filter = ("is_active", "is_staff", "is_superuser", "groups")
    show_full_result_count = False
    filter_horizontal = ("groups",)
    readonly_fields = ("last_login", "date_joined")
    fieldsets = (
        (None, {"fields": ("username", "password", "first_name", "last_name", "email")}),
        ("Permissions", {"fields": ("is_active", "is_staff", "groups")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or not self.has_change_permission(request, obj):
            return fieldsets
        if request.user.is_superuser:
            fieldsets = (*fieldsets, ("Superuser", {"fields": ("is_superuser",)}))
        return (*fieldsets, (None, {"fields": ("seen",)}))

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        """Set somebody else's password; one's own is changed where the old one is asked for."""
        with transaction.atomic():
            person = self.get_object(request, unquote(id))
            if person is not None and person.pk == request.user.pk:
                return HttpResponseRedirect(reverse("admin:password_change"))
            return super().user_change_password(request, id, form_url)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        if obj is not None and obj.is_superuser and not request.user.is_superuser:
            return False
        return super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        # They are made inactive instead: what they did stays theirs.
        return False


def replace_what_libraries_registered() -> None:
    """Leave out the pages that show keys and codes, and those of roles, which are made by migrate."""
    for model in (User, Group, TOTPDevice, StaticDevice):
        admin.site.unregister(model)
    admin.site.register(User, PersonAdmin)
