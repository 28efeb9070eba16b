"""The catalog: event types that are described, and what their payloads have to look like."""

import json
import logging
from collections.abc import Mapping
from typing import Any, Self

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models.functions import Now
from django.utils import timezone

from subscriptions import event_types, schema_cache, schemas
from subscriptions.ids import new_id
from subscriptions.schema_cache import CheckedType
from subscriptions.schemas import Schema
from subscriptions.validation import validate_event_type, validate_storable

logger = logging.getLogger(__name__)


def validate_schema(value: Any) -> None:
    try:
        validate_storable(value)
    except ValidationError:
        return  # said of it anyway, and a pattern of a megabyte takes seconds to compile
    try:
        schemas.compile_schema(value)
    except schemas.InvalidSchema as invalid:
        where = f"{invalid.pointer}: " if invalid.pointer else ""
        raise ValidationError(f"{where}{invalid}", code="invalid_schema") from None


class EventTypeQuerySet(models.QuerySet["EventType"]):
    def checked(self) -> Self:
        """Limit to those whose payloads are checked."""
        return self.exclude(validation=EventType.Validation.OFF).exclude(schema=None)


class EventType(models.Model):
    """An event type that is described. Events of other types may be published all the same."""

    class Validation(models.TextChoices):
        """What a payload that does not fit the schema means."""

        OFF = "off"  # nothing: it is not looked at
        WARN = "warn"  # it is taken, and what is wrong with it is kept
        ENFORCE = "enforce"  # it is refused

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    name = models.CharField(max_length=event_types.MAX_LENGTH, unique=True, validators=[validate_event_type])
    description = models.TextField(blank=True, default="", max_length=4096)
    schema = models.JSONField(
        null=True,
        blank=True,
        validators=[validate_storable, validate_schema],
        help_text="JSON Schema (2020-12) of the payload; it may only refer to itself.",
    )
    example = models.JSONField(
        null=True,
        blank=True,
        validators=[validate_storable],
        help_text="A payload as it may come; it has to fit the schema.",
    )
    deprecated = models.BooleanField(
        default=False, help_text="Still delivered, and not to be used for anything new."
    )
    validation = models.CharField(
        max_length=7,
        choices=Validation,
        default=Validation.OFF,
        help_text="Whether payloads are checked: off, warn (taken, with the findings), enforce (refused).",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)

    objects = EventTypeQuerySet.as_manager()

    class Meta:
        db_table = "event_types"
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save, and make this process forget the cached schemas, before and after the commit."""
        if not self._state.adding:
            self.updated_at = timezone.now()
        super().save(*args, **kwargs)
        schema_cache.clear()
        transaction.on_commit(schema_cache.clear)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        deleted = super().delete(*args, **kwargs)
        schema_cache.clear()
        transaction.on_commit(schema_cache.clear)
        return deleted

    def clean(self) -> None:
        """Raise ValidationError unless the example fits the schema, and there is one if it is enforced."""
        check_enforceable(self.schema, self.validation)
        check_example(self.schema, self.example)


def check_enforceable(schema: Any, validation: str | None, *, field: str = "validation") -> None:
    """Raise ValidationError, of this field, if a schema is to be enforced and there is none."""
    if schema is None and validation == EventType.Validation.ENFORCE:
        text = "Without a schema nothing can be enforced. Give a schema, or set validation to off."
        raise ValidationError({field: ValidationError(text, code="no_schema")})


def check_example(schema: Any, example: Any) -> None:
    """Raise ValidationError unless the example, if there is one, fits the schema, if there is one."""
    if schema is None or example is None:
        return
    try:
        validate_storable(schema)  # before it is compiled, as validate_schema does
        validate_storable(example)
        compiled = schemas.compile_schema(schema)
    except (ValidationError, schemas.InvalidSchema):
        return  # said of the schema or of the example itself
    for finding in compiled.findings(example, size=len(json.dumps(example))):
        where = f"{finding['pointer']}: " if finding["pointer"] else ""
        raise ValidationError({"example": ValidationError(f"{where}{finding['detail']}", code="does_not_fit")})


def read_checked() -> Mapping[str, CheckedType]:
    """Read the event types that are checked, by name, and keep them in this process.

    A schema that has not changed since is neither fetched nor compiled again.
    """
    generation = schema_cache.generation()
    types = _read_types(schema_cache.known())
    schema_cache.put(types, generation=generation)
    return types


def _read_types(known: Mapping[str, CheckedType]) -> Mapping[str, CheckedType]:
    rows = EventType.objects.checked().values_list("name", "id", "updated_at", "validation")
    versions = {name: (name, row_id, updated_at) for name, row_id, updated_at, _ in rows}
    changed = [name for name, version in versions.items() if name not in known or known[name].version != version]
    found = EventType.objects.filter(name__in=changed).values_list("name", "schema") if changed else []
    compiled = {name: _compiled(name, schema) for name, schema in found}
    types = {}
    for name, _, _, validation in rows:
        if name not in compiled and name not in known:
            continue  # deleted between the two queries
        schema = compiled[name] if name in compiled else known[name].schema
        is_enforced = validation == EventType.Validation.ENFORCE
        types[name] = CheckedType(schema=schema, is_enforced=is_enforced, version=versions[name])
    return types


def _compiled(name: str, schema: Any) -> Schema | None:
    """Return a stored schema ready for use; None for one that this version cannot read, which checks nothing."""
    try:
        return schemas.compile_schema(schema)
    except schemas.InvalidSchema as invalid:
        logger.error(
            "the schema of an event type cannot be used", extra={"event_type": name, "error": str(invalid)}
        )
        return None
