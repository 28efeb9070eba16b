"""What one-time codes are checked against, at rest: the keys of apps encrypted, backup codes hashed.

The devices are django-otp's, with all that it does for them; it would store both as they are.
"""

import base64
import os
from functools import partial
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.utils.crypto import salted_hmac
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from subscriptions import secrets
from subscriptions.reencryption import Tally
from subscriptions.secrets import Purpose, UnreadableSecret

BACKUP_CODES = 10

# As RFC 4226 recommends; encrypted, and twice in base64, they are just as long as django-otp's column.
KEY_BYTES = 20

# As many bytes of a hash as django-otp's column takes, in base64.
_DIGEST_BYTES = 12


def add_device(user: User) -> TOTPDevice:
    """Store a device with a new key for this user, which is not confirmed yet."""
    key = _sealed(os.urandom(KEY_BYTES), user.pk)
    return TOTPDevice.objects.create(user=user, name="app", key=key, confirmed=False)


def opened(device: TOTPDevice) -> TOTPDevice:
    """Return a device whose key can be used; whoever saves it leaves the stored one as it is.

    Raises UnreadableSecret if no key in SECRET_KEYS opens it.
    """
    device.key = _unsealed(device.key, device.user_id).hex()
    names = {field.name for field in device._meta.concrete_fields} - {"id", "key"}  # noqa: SLF001 - Django documents it
    device.save = partial(device.save, update_fields=names)
    return device


def is_right(device: TOTPDevice | StaticDevice, code: str) -> bool:
    """Return whether a code is of this device, whose row is locked; it counts no second time.

    Raises UnreadableSecret as `opened` does.
    """
    if isinstance(device, StaticDevice):
        return bool(device.verify_token(digest_of(code, device.user)))
    return bool(opened(device).verify_token(code))


def add_backup_codes(user: User) -> list[str]:
    """Store new backup codes for this user, and return them: they cannot be read again."""
    codes = [StaticToken.random_token() for _ in range(BACKUP_CODES)]
    device = StaticDevice.objects.create(user=user, name="backup codes")
    StaticToken.objects.bulk_create(StaticToken(device=device, token=digest_of(code, user)) for code in codes)
    return codes


def digest_of(code: str, user: User) -> str:
    """Return what is stored of a backup code: it has too few bits for a hash without a key."""
    digest = salted_hmac(f"backup code of user {user.pk}", code, algorithm="sha256").digest()
    return base64.urlsafe_b64encode(digest[:_DIGEST_BYTES]).decode()


def reencrypt(tally: Tally, *, dry_run: bool) -> None:
    """Bring the key of every device under the first key of SECRET_KEYS, and count it in `tally`."""
    for device in TOTPDevice.objects.order_by("pk"):
        try:
            if secrets.is_current(_bytes_of(device.key)):
                tally.current += 1
                continue
            anew = _sealed(_unsealed(device.key, device.user_id), device.user_id)
        except UnreadableSecret:
            tally.unreadable.append(f"one-time code of user {device.user_id}")
            continue
        same: Any = TOTPDevice.objects.filter(pk=device.pk, key=device.key)
        if dry_run or same.update(key=anew):
            tally.reencrypted += 1


def _sealed(key: bytes, user_id: int) -> str:
    text = base64.b64encode(key).decode().rstrip("=")
    raw = secrets.encrypt(text, row_id=UUID(int=user_id), purpose=Purpose.ONE_TIME_CODE)
    return base64.b64encode(raw).decode()


def _unsealed(stored: str, user_id: int) -> bytes:
    text = secrets.decrypt(_bytes_of(stored), row_id=UUID(int=user_id), purpose=Purpose.ONE_TIME_CODE)
    return base64.b64decode(text + "=")


def _bytes_of(stored: str) -> bytes:
    try:
        return base64.b64decode(stored, validate=True)
    except ValueError:
        raise UnreadableSecret("The key of this device is not encrypted.") from None
