"""The audit log: who changed or did what, when and from where. Entries are only ever added."""

import os
import pwd
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models.functions import Now
from django.http import HttpRequest

from subscriptions.ids import new_id
from subscriptions.origin import address_of
from subscriptions.problems import current_request_id

# A longer text is cut: the log says what changed, it is no copy of it.
LONGEST_TEXT = 1_000

# What an entry says of a secret that changed.
CHANGED = "changed"

# What is stored as it is, and nobody may read all the same.
SECRET_FIELDS = frozenset({"password", "key", "secret", "secret_headers", "auth"})

# What changes by itself: bookkeeping of the engine, of API keys and of logins.
BOOKKEEPING = frozenset(
    {
        "blocked_until",
        "circuit_trips",
        "last_login",
        "last_used_at",
        "rate_counts",
        "rate_times",
        "updated_at",
        "window_calls",
        "window_failures",
        "window_started_at",
    }
)

# What says nothing when something is added.
EMPTY: tuple[Any, ...] = (None, "", [], {})

_noted: ContextVar[bool] = ContextVar("noted", default=False)


class AuditEntry(models.Model):
    """One change or action. A trigger in the database refuses to change or delete it."""

    class ActorKind(models.TextChoices):
        USER = "user"
        API_KEY = "api_key", "API key"
        COMMAND = "command"
        NOBODY = "nobody"  # whoever fails to log in, or calls without a key in development

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    recorded_at = models.DateTimeField(db_default=Now())
    actor_kind = models.CharField(max_length=8, choices=ActorKind)
    actor = models.CharField(max_length=255, blank=True)
    action = models.CharField(max_length=64)
    object_kind = models.CharField(max_length=64, blank=True)
    object_id = models.CharField(max_length=255, blank=True)
    # The fields that changed, and what is worth knowing of an action.
    before = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    after = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    address = models.GenericIPAddressField(null=True)
    request_id = models.CharField(max_length=128, blank=True)

    class Meta:
        db_table = "audit_entries"
        ordering = ("-id",)
        verbose_name_plural = "audit entries"
        # To be read and nothing else.
        default_permissions = ("view",)
        indexes = (
            # The history of one object: the console's page and its search.
            models.Index(fields=("object_id", "-id"), name="audit_entries_by_object"),
            # What one person or key did: the console's search.
            models.Index(fields=("actor", "-id"), name="audit_entries_by_actor"),
            # The console's filter by action.
            models.Index(fields=("action", "-id"), name="audit_entries_by_action"),
        )

    def __str__(self) -> str:
        return f"{self.action} by {self.actor or self.actor_kind}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Actor:
    """Who does something: the username, the API key's name and prefix, the command's user."""

    kind: str
    name: str = ""
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Hidden:
    """A secret's stored value, to be compared and never told."""

    value: Any


def user_actor(request: HttpRequest, user: AbstractBaseUser) -> Actor:
    """Return the actor of what a user does in the console."""
    return Actor(kind=AuditEntry.ActorKind.USER, name=user.get_username(), address=address_of(request))


def command_actor() -> Actor:
    """Return the actor of a management command: the user of the operating system, and the host."""
    user_id = os.getuid()
    try:
        user = pwd.getpwuid(user_id).pw_name
    except KeyError:
        user = str(user_id)
    return Actor(kind=AuditEntry.ActorKind.COMMAND, name=f"{user}@{socket.gethostname()}"[:255])


def record(
    actor: Actor,
    action: str,
    *,
    kind: str = "",
    object_id: object = "",
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Add an entry. Call it in the transaction of the change, so that neither is without the other."""
    AuditEntry.objects.bulk_create(
        [entry(actor, action, kind=kind, object_id=object_id, before=before, after=after)]
    )
    note()


@contextmanager
def noting() -> Iterator[Callable[[], bool]]:
    """Find out whether something was recorded within the block: ask what it yields."""
    token = _noted.set(False)
    try:
        yield _noted.get
    finally:
        _noted.reset(token)


def note() -> None:
    """Say that whatever there was to record has been."""
    _noted.set(True)


def entry(
    actor: Actor,
    action: str,
    *,
    kind: str = "",
    object_id: object = "",
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> AuditEntry:
    """Return an unsaved entry, for those who add many at once."""
    return AuditEntry(
        actor_kind=actor.kind,
        actor=actor.name[:255],
        action=action,
        object_kind=kind,
        object_id=str(object_id)[:255],
        before={name: _shown(value) for name, value in (before or {}).items()},
        after={name: _shown(value) for name, value in (after or {}).items()},
        address=actor.address,
        request_id=current_request_id(),
    )


def snapshot(row: models.Model) -> dict[str, Any]:
    """Return what a row holds, by field, as far as it was loaded and people may change it."""
    fields = [field for field in row._meta.concrete_fields if field.name not in BOOKKEEPING]  # noqa: SLF001
    loaded = [field for field in fields if field.attname not in row.get_deferred_fields()]
    related = {field.name: _names(row, field) for field in row._meta.many_to_many}  # noqa: SLF001
    return {field.name: _hidden(field, getattr(row, field.attname)) for field in loaded} | related


def _names(row: models.Model, field: Any) -> list[str]:
    return sorted(str(related) for related in getattr(row, field.name).all())


def _hidden(field: models.Field, value: Any) -> Any:
    if isinstance(field, models.BinaryField):
        return Hidden(None if value is None else bytes(value))
    return Hidden(value) if field.name in SECRET_FIELDS else value


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields that differ, as they were and as they are. Of secrets, only that they changed."""
    names = [name for name in after if name not in before or before[name] != after[name]]
    old = {name: before[name] for name in names if name in before and not isinstance(after[name], Hidden)}
    return old, {name: after[name] for name in names}


def given(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a call but its payload, with what is secret in them hidden."""
    told = {name: value for name, value in data.items() if name != "body"}
    return {name: Hidden(value) if name in SECRET_FIELDS else value for name, value in told.items()}


def _shown(value: Any) -> Any:
    if isinstance(value, Hidden):
        return CHANGED
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"{value[:LONGEST_TEXT]}… ({len(value)} characters)"
    return value
