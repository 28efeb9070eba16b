"""One-time codes (TOTP, RFC 6238): whoever has set one up needs it to log in to the console."""

import logging
from base64 import b32encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import django_otp
import segno
from django import forms
from django.contrib.admin.forms import AdminAuthenticationForm, AdminPasswordChangeForm
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_login_failed
from django.core.validators import MaxLengthValidator
from django.db import transaction
from django.db.models.functions import Now
from django.http import HttpRequest
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from subscriptions import audit, code_keys
from subscriptions.secrets import UnreadableSecret

logger = logging.getLogger(__name__)

SETUP_TIME = timedelta(minutes=10)  # after the password was given; the key is shown that long

CODE_FIELD = {"autocomplete": "one-time-code", "inputmode": "text", "spellcheck": "false"}


class LoginForm(AdminAuthenticationForm):
    """User, password and, for whoever has set one up, a code; it is not told which of them is wrong."""

    one_time_code = forms.CharField(
        required=False, max_length=16, label="One-time code", widget=forms.TextInput(attrs=CODE_FIELD)
    )

    error_messages = AdminAuthenticationForm.error_messages | {
        "invalid_login": (
            "Please enter the correct username and password of a staff account, and a one-time code "
            "that was not used before if you have set that up."
        ),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Django only tells the browser; a longer name would not fit where failures are counted.
        longest = self.username_field.max_length
        self.fields["username"].validators.append(MaxLengthValidator(longest))

    def confirm_login_allowed(self, user: Any) -> None:
        is_allowed = user.is_active and user.is_staff
        if is_allowed and has_code(user):
            user.otp_device = verify(user, self.cleaned_data.get("one_time_code", ""))
            is_allowed = user.otp_device is not None
        if not is_allowed:
            # Counts and is recorded as a wrong password does.
            user_login_failed.send(
                sender=__name__, credentials={"username": user.get_username()}, request=self.request
            )
            raise self.get_invalid_login_error()


class PasswordForm(forms.Form):
    """The password once more: a session that somebody got hold of must not change how one logs in."""

    password = forms.CharField(strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}))

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request = request

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        if not _is_own_password(self._request, password):
            raise forms.ValidationError("This is not your password.", code="wrong_password")
        return password


class PasswordChangeForm(AdminPasswordChangeForm):
    """Django's, whose guesses of the old password count, are recorded and lock out as those at the login."""

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request = request

    def clean_old_password(self) -> str:
        password: str = self.cleaned_data["old_password"]
        if not _is_own_password(self._request, password):
            raise forms.ValidationError(self.error_messages["password_incorrect"], code="password_incorrect")
        return password


def _is_own_password(request: HttpRequest, password: str) -> bool:
    username = cast(User, request.user).get_username()
    return authenticate(request, username=username, password=password) is not None


class CodeForm(forms.Form):
    """The first code of a device that is being set up."""

    code = forms.CharField(max_length=16, widget=forms.TextInput(attrs=CODE_FIELD))

    def __init__(self, device: TOTPDevice, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._device = device

    def clean_code(self) -> str:
        code: str = self.cleaned_data["code"]
        if _verified(self._device, code) is None:
            raise forms.ValidationError("This code is wrong. Wait for the next one.", code="wrong_code")
        return code


def has_code(user: User) -> bool:
    """Return whether this user needs a code to log in."""
    return bool(TOTPDevice.objects.devices_for_user(user, confirmed=True).exists())


def verify(user: User, code: str) -> Any:
    """Return the user's device that this code, or this backup code, is of; None if it is wrong or used."""
    code = code.strip().lower()
    if not code:
        return None  # no guess, which would make the next one wait
    is_time_based = code.isascii() and code.isdecimal()
    model = TOTPDevice if is_time_based else StaticDevice
    for device in model.objects.devices_for_user(user, confirmed=True):
        if (verified := _verified(device, code)) is not None:
            return verified
    return None


def _verified(device: Any, code: str) -> Any:
    """Return a device if this code, or this backup code, is of it; None if it is wrong or used."""
    with transaction.atomic():
        locked = type(device).objects.select_for_update().filter(pk=device.pk).first()
        try:
            return locked if locked is not None and code_keys.is_right(locked, code) else None
        except UnreadableSecret as error:
            details = {"user_id": device.user_id, "error": str(error)}
            logger.error("the key of a one-time code cannot be read", extra=details)
            return None


def pending_device(user: User) -> TOTPDevice | None:
    """Return the device that this user has begun to set up, opened; none that was left unfinished."""
    begun = TOTPDevice.objects.devices_for_user(user, confirmed=False)
    # Whoever finds the session later has not given the password.
    device = begun.filter(created_at__gt=Now() - SETUP_TIME).first()
    try:
        return None if device is None else code_keys.opened(device)
    except UnreadableSecret:
        return None


def begin(user: User) -> None:
    """Make a new key for this user, which counts once a code of it was given."""
    with _devices_of(user):
        TOTPDevice.objects.devices_for_user(user, confirmed=False).delete()
        code_keys.add_device(user)


def confirm(request: HttpRequest, device: TOTPDevice) -> list[str] | None:
    """Have this device count, in place of the user's others; return the backup codes, which are shown once.

    None if it is no more: it was begun anew, or removed.
    """
    user = cast(User, request.user)
    with _devices_of(user):
        if not TOTPDevice.objects.filter(pk=device.pk, confirmed=False).update(confirmed=True):
            return None
        _remove_all(user, but=device)
        codes = code_keys.add_backup_codes(user)
        audit.record(audit.user_actor(request, user), "set up one-time code", kind="user", object_id=user.pk)
    django_otp.login(request, device)
    return codes


def remove(user: User, actor: audit.Actor) -> bool:
    """Take this user's devices and backup codes away; return whether there were any."""
    with _devices_of(user):
        had_some = has_code(user)
        _remove_all(user)
        if had_some:
            audit.record(actor, "remove one-time code", kind="user", object_id=user.pk)
    return had_some


@contextmanager
def _devices_of(user: User) -> Iterator[None]:
    """Let one at a time change the devices of this user, in a transaction."""
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=user.pk)
        yield


def _remove_all(user: User, *, but: TOTPDevice | None = None) -> None:
    TOTPDevice.objects.filter(user=user).exclude(pk=None if but is None else but.pk).delete()
    StaticDevice.objects.filter(user=user).delete()


def key_of(device: TOTPDevice) -> str:
    """Return the key as apps take it by hand: base32, in groups of four."""
    text = b32encode(device.bin_key).decode().rstrip("=")
    return " ".join(text[start : start + 4] for start in range(0, len(text), 4))


def picture_of(device: TOTPDevice) -> str:
    """Return the QR code of a device as a data URI."""
    return str(segno.make(device.config_url).svg_data_uri(scale=5, border=2))
