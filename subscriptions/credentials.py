"""What a subscription keeps secret: its signing secrets, its secret headers, and how to authenticate."""

import json
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any

from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from subscriptions import secrets, signing
from subscriptions.secrets import Purpose, UnreadableSecret

UNREADABLE = "unreadable"


class Credentials(models.Model):
    """The encrypted columns of a subscription; see subscriptions/secrets.py."""

    secret = models.BinaryField(editable=False)
    secret_hint = models.CharField(max_length=8, editable=False)
    # During a rotation: the secret before, and until when it signs and verifies as well.
    previous_secret = models.BinaryField(null=True, editable=False)
    previous_secret_until = models.DateTimeField(null=True, editable=False)
    # JSON objects: of names and values, and by `type`; null means none.
    secret_headers = models.BinaryField(null=True, editable=False)
    auth = models.BinaryField(null=True, editable=False)

    class Meta:
        abstract = True

    @cached_property
    def is_rotating(self) -> bool:
        """Whether the secret before this one still counts.

        By this host's clock, unless the row came from `cached`, which asks the database.
        """
        return self.previous_secret_until is not None and self.previous_secret_until > timezone.now()

    @cached_property
    def signing_keys(self) -> list[bytes]:
        """The HMAC keys that sign this subscription's deliveries and verify its ingest calls, newest first."""
        return [signing.key_of(secrets.decrypt(stored, row_id=self.pk)) for stored in self.stored_secrets]

    @property
    def stored_secrets(self) -> list[bytes]:
        """The secrets that count now, encrypted, newest first."""
        stored = [self.secret, self.previous_secret] if self.is_rotating else [self.secret]
        return [bytes(each) for each in stored if each is not None]

    def set_secret(self, secret: str) -> None:
        """Encrypt `secret` into this row, unsaved. It cannot be shown again afterwards."""
        self.secret = secrets.encrypt(secret, row_id=self.pk)
        self.secret_hint = secrets.hint_of(secret)
        self.__dict__.pop("signing_keys", None)

    def rotate_secret(self, secret: str, *, overlap: timedelta) -> None:
        """Put `secret` in the place of the present one, which counts as well for the time of `overlap`.

        The secret before that one, if its own overlap is not over, counts no more.
        """
        self.previous_secret = self.secret if overlap else None
        self.previous_secret_until = Now() + overlap if overlap else None
        self.set_secret(secret)
        self.save(update_fields=("secret", "secret_hint", "previous_secret", "previous_secret_until"))
        self.refresh_from_db(fields=("previous_secret_until",))
        self.__dict__.pop("is_rotating", None)

    @property
    def secret_header_names(self) -> list[str] | None:
        """The names of the headers whose values are never shown; None if no key in SECRET_KEYS opens them."""
        if self.secret_headers is None:
            return []
        try:
            stored = secrets.decrypt(bytes(self.secret_headers), row_id=self.pk, purpose=Purpose.HEADERS)
        except UnreadableSecret:
            return None  # one such row must not take the others in a list with it
        return sorted(json.loads(stored))

    def set_secret_headers(self, headers: Mapping[str, str]) -> None:
        """Encrypt `headers` into this row, unsaved; none at all empties the column."""
        self.secret_headers = self._sealed(headers, Purpose.HEADERS) if headers else None

    @property
    def auth_type(self) -> str | None:
        """How calls authenticate to the receiver, without what they do it with, if it can be read."""
        if self.auth is None:
            return None
        try:
            stored = secrets.decrypt(bytes(self.auth), row_id=self.pk, purpose=Purpose.AUTH)
        except UnreadableSecret:
            return UNREADABLE
        return str(json.loads(stored)["type"])

    def set_auth(self, auth: Mapping[str, Any] | None) -> None:
        """Encrypt `auth` into this row, unsaved; None empties the column."""
        self.auth = None if auth is None else self._sealed(auth, Purpose.AUTH)

    def wipe(self) -> None:
        """Forget every secret of this row, unsaved."""
        self.secret, self.secret_hint = b"", ""
        self.previous_secret = self.previous_secret_until = None
        self.secret_headers = self.auth = None

    def _sealed(self, value: Mapping[str, Any], purpose: Purpose) -> bytes:
        return secrets.encrypt(json.dumps(value), row_id=self.pk, purpose=purpose)
