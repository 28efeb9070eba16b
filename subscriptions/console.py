"""The console: Django's admin with one-time codes, and an entry in the audit log for what people do."""

from collections.abc import Callable
from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.admin import AdminSite
from django.contrib.auth.models import User
from django.contrib.auth.views import PasswordChangeView, redirect_to_login
from django.db import transaction
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from subscriptions import audit, logins, one_time_code
from subscriptions.one_time_code import CodeForm, LoginForm, PasswordChangeForm, PasswordForm
from subscriptions.visible import visible_page


class Console(AdminSite):
    site_header = site_title = "Webhook delivery service"
    index_title = "Administration"
    site_url = None
    enable_nav_sidebar = False  # the lists are wide
    login_form = LoginForm

    def get_urls(self) -> list[Any]:
        own: list[URLPattern] = [
            path("one-time-code/", self.one_time_code, name="one_time_code"),
            path("logout/", self.logout, name="logout"),  # for those too who may do nothing else yet
        ]
        # The one would look for any row of any table, for whoever is on the staff. The other no page needs.
        unwanted = ("view_on_site", "autocomplete")
        return [*own, *(each for each in super().get_urls() if getattr(each, "name", "") not in unwanted)]

    def has_permission(self, request: HttpRequest) -> bool:
        """Let in active staff, with a code if they have set one up or everybody must."""
        if not super().has_permission(request) or is_verified(request):
            return super().has_permission(request)
        return not (settings.REQUIRE_OTP or needs_code(request))

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Any:  # noqa: FBT001, FBT002 - Django's signature
        protected = super().admin_view(view, cacheable)

        def inner(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if settings.REQUIRE_OTP and self._may_set_up(request) and not is_verified(request):
                return HttpResponseRedirect(reverse("admin:one_time_code"))
            return cast(HttpResponseBase, _visible(protected(request, *args, **kwargs)))

        return inner

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        with logins.turn_of(request):
            return _visible(super().login(request, extra_context))

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        with logins.turn_of(request), transaction.atomic():
            response = self._password_change(request, extra_context or {})
            if request.method == "POST" and response.status_code == 302:
                user = cast(User, request.user)
                after = {"password": audit.CHANGED}
                actor = audit.user_actor(request, user)
                audit.record(actor, "change", kind="user", object_id=user.pk, after=after)
        return response

    def _password_change(self, request: HttpRequest, extra_context: dict[str, Any]) -> TemplateResponse:
        """Do as Django's method does, which has no way to give another form."""
        cast(Any, request).current_app = self.name
        view = _PasswordChangeView.as_view(
            success_url=reverse("admin:password_change_done", current_app=self.name),
            extra_context=self.each_context(request) | extra_context,
        )
        return cast(TemplateResponse, view(request))

    @method_decorator(never_cache)
    def one_time_code(self, request: HttpRequest) -> HttpResponseBase:
        """Set up, replace or remove one's own one-time code. A GET only shows where that stands."""
        if not self._may_set_up(request):
            return redirect_to_login(request.get_full_path(), reverse("admin:login"))
        match request.POST.get("step"):
            case "begin" | "remove" as step:
                with logins.turn_of(request):
                    return self._with_password(request, step)
            case "confirm":
                return self._confirm(request)
        return self._page(request)

    def _may_set_up(self, request: HttpRequest) -> bool:
        """Whoever has no code yet may set one up before they may do anything else."""
        return super().has_permission(request) and (is_verified(request) or not needs_code(request))

    def _with_password(self, request: HttpRequest, step: str) -> HttpResponseBase:
        user = cast(User, request.user)
        form = PasswordForm(request, request.POST)
        if not form.is_valid():
            return self._page(request, password_form=form)
        if step == "begin":
            one_time_code.begin(user)
        elif one_time_code.remove(user, audit.user_actor(request, user)):
            messages.success(request, "Your one-time code is removed.")
        return HttpResponseRedirect(request.path)

    def _confirm(self, request: HttpRequest) -> HttpResponseBase:
        device = one_time_code.pending_device(cast(User, request.user))
        if device is None:
            return HttpResponseRedirect(request.path)
        form = CodeForm(device, request.POST)
        if not form.is_valid():
            return self._page(request, code_form=form)
        codes = one_time_code.confirm(request, device)
        if codes is None:
            messages.error(request, "Nothing is set up: meanwhile this was begun anew, or removed.")
            return HttpResponseRedirect(request.path)
        return self._page(request, backup_codes=codes)

    def _page(self, request: HttpRequest, **context: Any) -> TemplateResponse:
        user = cast(User, request.user)
        device = one_time_code.pending_device(user)
        page = {
            **self.each_context(request),
            "title": "One-time code",
            "has_code": one_time_code.has_code(user),
            "device": device,
            "key": None if device is None else one_time_code.key_of(device),
            "picture": None if device is None else one_time_code.picture_of(device),
            "password_form": PasswordForm(request),
            "code_form": None if device is None else CodeForm(device),
        }
        return cast(
            TemplateResponse, _visible(TemplateResponse(request, "admin/one_time_code.html", page | context))
        )


class _PasswordChangeView(PasswordChangeView):
    form_class = PasswordChangeForm

    def get_form_kwargs(self) -> dict[str, Any]:
        return super().get_form_kwargs() | {"request": self.request}


def _visible(response: Any) -> Any:
    """Have a page rendered with its text visible: whatever field it shows, and whoever wrote what is in it."""
    if isinstance(response, TemplateResponse):
        response.add_post_render_callback(_make_visible)
    return response


def _make_visible(response: Any) -> None:
    response.content = visible_page(response.content.decode())


def is_verified(request: HttpRequest) -> bool:
    """Return whether this session began with a one-time code."""
    return bool(cast(Any, request.user).is_verified())


def needs_code(request: HttpRequest) -> bool:
    """Return whether the user has set up a code; asks the database once for each request."""
    known = vars(request)
    if "_needs_code" not in known:
        known["_needs_code"] = one_time_code.has_code(cast(User, request.user))
    return bool(known["_needs_code"])
