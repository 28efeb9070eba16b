"""The keys of the REST API: who may call, and what."""

import hmac
import secrets as random
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Self

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from subscriptions.ids import new_id


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def create_key(
        self, name: str, scopes: Sequence[str], *, tenant: str | None, valid_for: timedelta | None
    ) -> tuple["ApiKey", str]:
        """Create an API key and return it with its text, which is stored nowhere.

        `tenant=None` makes an operator's key, which sees every tenant.
        """
        prefix, secret = random.token_hex(6), random.token_urlsafe(32)
        text = f"{ApiKey.PREFIX}{prefix}_{secret}"
        key = self.create(
            name=name,
            prefix=prefix,
            digest=ApiKey.digest_of(text),
            scopes=list(scopes),
            tenant=tenant,
            expires_at=None if valid_for is None else Now() + valid_for,
        )
        return key, text

    def usable(self) -> Self:
        """Leave out the keys that are revoked, and those that are expired by the database's clock."""
        unexpired = models.Q(expires_at=None) | models.Q(expires_at__gt=Now())
        return self.filter(unexpired, revoked_at=None)

    def authenticate(self, text: str) -> "ApiKey | None":
        """Return the usable key whose text this is, or None.

        The digest is compared in constant time, against an impossible one where no key
        has the prefix, so that the time tells nothing about which prefixes exist.
        """
        # PostgreSQL takes no NUL in a text; no key has one either.
        prefix = text.removeprefix(ApiKey.PREFIX).partition("_")[0].replace("\0", "")
        key = self.usable().filter(prefix=prefix).first()
        expected = bytes(32) if key is None else bytes(key.digest)
        return key if hmac.compare_digest(expected, ApiKey.digest_of(text)) else None

    def revoke(self) -> int:
        """Make the keys among these that are not revoked unusable at once; return how many."""
        return self.filter(revoked_at=None).update(revoked_at=Now())


class ApiKey(models.Model):
    """A key for the REST API: hashed, scoped, and optionally bound to one tenant."""

    PREFIX = "whk_"
    LAST_USED_RESOLUTION = timedelta(minutes=1)

    class Scope(models.TextChoices):
        PUBLISH = "publish"
        READ = "read"
        MANAGE = "manage"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    name = models.CharField(max_length=255)
    prefix = models.CharField(max_length=16, unique=True, editable=False)
    # SHA-256 of the whole key: it has 256 random bits, so that no slow hash is needed.
    digest = models.BinaryField(editable=False)
    scopes = ArrayField(models.CharField(max_length=16, choices=Scope))
    tenant = models.CharField(  # noqa: DJ001 - null is the operator's view, "" the tenant without a name
        max_length=255, null=True, blank=True, help_text="Bind the key to one customer; none sees all."
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        db_table = "api_keys"
        ordering = ("-id",)
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} ({self.PREFIX}{self.prefix}…)"

    @staticmethod
    def digest_of(text: str) -> bytes:
        return sha256(text.encode("utf-8", "surrogateescape")).digest()

    @property
    def state(self) -> str:
        """Whether the key can be used and until when, in words, by the clock of this host."""
        if self.revoked_at is not None:
            return f"revoked {self.revoked_at:%Y-%m-%d %H:%M}"
        if self.expires_at is None:
            return "valid"
        verb = "expired" if self.expires_at <= timezone.now() else "expires"
        return f"{verb} {self.expires_at:%Y-%m-%d %H:%M}"

    def has_scope(self, scope: str) -> bool:
        return scope in self.scopes

    def note_use(self) -> None:
        """Remember when the key was last used, to the minute: one write a minute at most."""
        stale = models.Q(last_used_at=None) | models.Q(last_used_at__lt=Now() - self.LAST_USED_RESOLUTION)
        ApiKey.objects.filter(stale, id=self.id).update(last_used_at=Now())
