"""What people do on the console's pages goes to the audit log, in the transaction of the change."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast
from uuid import UUID

import psycopg.errors
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import IntegrityError, models, transaction
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from subscriptions import audit
from subscriptions.audit import AuditEntry
from subscriptions.read_only_admin import HistoryFromLog

# In one form: Django takes no more than a thousand fields.
MOST_IDS = 500


class AuditedAdmin(HistoryFromLog):
    """Pages whose changes are recorded."""

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return the row; before somebody changes it, lock it and remember what it is."""
        row = super().get_object(request, object_id, from_field)
        if row is None or request.method != "POST":
            return row
        row = self.get_queryset(request).select_for_update(no_key=True).filter(pk=row.pk).first()
        if row is not None:
            vars(request)["_audited_before"] = audit.snapshot(row)
        return row

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Save what the form says, or say in the form that somebody has just taken that name."""
        try:
            return super().changeform_view(request, *args, **kwargs)
        except IntegrityError as error:
            if not isinstance(error.__cause__, psycopg.errors.UniqueViolation):
                raise
            # The form could not know: the other one was not committed yet. Now it does.
            return super().changeform_view(request, *args, **kwargs)

    def log_addition(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        given = {name: value for name, value in audit.snapshot(obj).items() if value not in audit.EMPTY}
        self._record(request, obj, "add", {}, given)

    def log_change(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        before, after = audit.changes(vars(request)["_audited_before"], audit.snapshot(obj))
        if after:
            self._record(request, obj, "change", before, after)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        for row in queryset:
            was = {name: value for name, value in audit.snapshot(row).items() if value not in audit.EMPTY}
            self._record(request, row, "delete", was, {})

    def response_action(self, *args: Any, **kwargs: Any) -> Any:
        """Run an action with what it records in one transaction: Django's own deletion too."""
        with transaction.atomic():
            return super().response_action(*args, **kwargs)

    def _record(
        self,
        request: HttpRequest,
        row: models.Model,
        action: str,
        before: dict[str, Any],
        after: dict[str, Any],
    ) -> None:
        actor = audit.user_actor(request, cast(User, request.user))
        kind = str(self.opts.verbose_name)
        audit.record(actor, action, kind=kind, object_id=row.pk, before=before, after=after)


def perform(request: HttpRequest, action: str, rows: models.QuerySet, *, operation: Callable[[Any], int]) -> int:
    """Do something to these rows, and record each that it changed; return how many `operation` says it did.

    The rows are locked first, so that what is recorded is what was changed.
    """
    meta = rows.model._meta  # noqa: SLF001 - Django documents it
    large = [field.name for field in meta.concrete_fields if isinstance(field, models.BinaryField)]
    stored = rows.model.objects.order_by("pk").defer(*large)
    actor, kind = audit.user_actor(request, cast(User, request.user)), str(meta.verbose_name)
    with transaction.atomic():
        ids = list(rows.values_list("pk", flat=True))
        locked = stored.filter(pk__in=ids).select_for_update(no_key=True)
        before = {row.pk: audit.snapshot(row) for row in locked}
        # What was changed or deleted before the lock was had may be none of them any more.
        ids = list(rows.filter(pk__in=ids).values_list("pk", flat=True))
        done = operation(rows.model.objects.filter(pk__in=ids))
        entries = []
        for row in stored.filter(pk__in=ids):
            old, new = audit.changes(before[row.pk], audit.snapshot(row))
            if new:
                entries.append(audit.entry(actor, action, kind=kind, object_id=row.pk, before=old, after=new))
        AuditEntry.objects.bulk_create(entries)
    return done


def confirmation_page(
    model_admin: admin.ModelAdmin,
    request: HttpRequest,
    *,
    title: str,
    sentences: Sequence[str],
    action: str,
    ids: Iterable[UUID],
    button: str,
    is_all: bool = False,
) -> HttpResponse:
    """Ask before an action; its button posts the same action again, with `confirmed`, for these ids.

    If `is_all`, it is for all that the list shows, and there is an id because Django asks for one. More ids
    than fit into a form can only be of all that the list shows.
    """
    ids = list(ids)
    if len(ids) > MOST_IDS and request.POST.get("select_across") == "1":
        ids, is_all = ids[:1], True
    context = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "title": title,
        "sentences": sentences,
        "action": action,
        "ids": ids,
        "button": button,
        "is_all": is_all,
    }
    return TemplateResponse(request, "admin/confirm_action.html", context)
