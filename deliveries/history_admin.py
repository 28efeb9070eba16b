"""What the pages about what happened share: read-only, bounded lists, readable contents."""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

import msgspec
import psycopg.errors
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import OperationalError, connection, transaction
from django.db.models import Model, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import cached_property
from django.utils.html import format_html

from deliveries.models import Event, WebhookRequest
from deliveries.outcome import ErrorClass
from subscriptions.ids import CLOCK_SLACK_MS, lowest_id_at
from subscriptions.visible import visible

# What a list counts and pages through at most.
COUNT_LIMIT = 10_000

# Longer than this the database does not work for a list: deliveries come first.
LIST_TIMEOUT_MS = 5_000

# What a page shows where there is nothing, as Django does for fields.
NOTHING = "-"


class BoundedPaginator(Paginator):
    """Pages through the first rows of a table that is too big to be counted."""

    @cached_property
    def _counted(self) -> int:
        rows = cast(QuerySet, self.object_list)
        return rows.order_by().values("pk")[: COUNT_LIMIT + 1].count()

    @cached_property
    def count(self) -> int:
        return min(self._counted, COUNT_LIMIT)

    @property
    def count_in_words(self) -> str:
        return f"The newest {COUNT_LIMIT} are listed." if self._counted > COUNT_LIMIT else f"{self.count} in all."


class TimeFilter(admin.SimpleListFilter):
    """Limits a list to the recent past, through the ids: they sort by time and are indexed."""

    parameter_name = "within"
    field: str
    windows = {
        "hour": ("Past hour", timedelta(hours=1)),
        "day": ("Past 24 hours", timedelta(days=1)),
        "week": ("Past 7 days", timedelta(days=7)),
    }

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [(key, label) for key, (label, _) in self.windows.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        _, length = self.windows.get(self.value() or "", ("", None))
        if length is None:
            return queryset
        since = timezone.now() - length
        return queryset.filter(
            **{f"{self.field}__gte": since, "id__gte": lowest_id_at(since, slack_ms=-CLOCK_SLACK_MS)}
        )


class PublishedFilter(TimeFilter):
    title = "published"
    field = "published_at"


class ReceivedFilter(TimeFilter):
    title = "received"
    field = "received_at"


class AttemptedFilter(TimeFilter):
    title = "attempted"
    field = "attempted_at"


class ErrorFilter(admin.SimpleListFilter):
    """Answers what is not delivered, or not yet, and why."""

    title = "error"
    parameter_name = "error"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [("any", "Any error"), *((error.value, error.value) for error in ErrorClass)]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if self.value() is None:
            return queryset
        return queryset.exclude(error="") if self.value() == "any" else queryset.filter(error=self.value())


class HistoryAdmin(admin.ModelAdmin):
    """Pages about what happened: read-only, and with no list that a huge table makes slow."""

    ordering = ("-id",)
    sortable_by = ()
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each facet counts the table
    search_fields = ("id",)  # shows the search box; get_search_results() does the search

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, or give up on one that keeps the database busy for too long."""
        if request.method == "POST":
            return super().changelist_view(request, extra_context)
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(LIST_TIMEOUT_MS)])
                return super().changelist_view(request, extra_context)
        except OperationalError as error:
            if not isinstance(error.__cause__, psycopg.errors.QueryCanceled) or not request.GET:
                raise
        too_slow = "That search took too long and was given up. Narrow it, to the past hour for instance."
        self.message_user(request, too_slow, messages.ERROR)
        return HttpResponseRedirect(request.path)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        term = search_term.strip()
        return (queryset.filter(self.matching(term)) if term else queryset), False

    def matching(self, term: str) -> Q:
        """Return the condition that finds what an operator typed."""
        raise NotImplementedError


class PayloadAdmin(HistoryAdmin):
    """Pages of what has a payload: readable, as it was sent, and to download byte for byte."""

    payload_fields = ("payload_size", "readable_payload", "payload_as_sent")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).defer("payload")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.download_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_payload"
        return [path("<uuid:row_id>/payload", view, name=name), *super().get_urls()]

    def download_view(self, request: HttpRequest, row_id: UUID) -> HttpResponse:
        row = self.get_object(request, str(row_id))
        if row is None:
            raise Http404
        if not self.has_view_permission(request, row):
            raise PermissionDenied
        # Never shown by the browser as a page: whoever publishes decides what is in it.
        return HttpResponse(
            row.body,
            content_type="application/octet-stream",
            headers={"Content-Disposition": f'attachment; filename="{row_id}.json"'},
        )

    @admin.display(description="payload")
    def payload_size(self, row: Event | WebhookRequest) -> str:
        url = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_payload", args=(row.id,))
        return format_html('{} bytes, <a href="{}">download</a>', len(row.body), url)

    @admin.display(description="formatted")
    def readable_payload(self, row: Event | WebhookRequest) -> str:
        return preformatted(readable(row.body))

    @admin.display(description="as sent")
    def payload_as_sent(self, row: Event | WebhookRequest) -> str:
        return preformatted(row.body.decode("utf-8", "backslashreplace"))


def parse_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def readable(content: bytes) -> str:
    """Return JSON indented, its numbers, escapes and repeated keys untouched; anything else as it is."""
    with suppress(msgspec.DecodeError, RecursionError):
        content = msgspec.json.format(content, indent=2)
    return content.decode("utf-8", "replace")


def preformatted(text: str) -> str:
    return format_html("<pre>{}</pre>", visible(text))


def shown_time(moment: datetime | None) -> str:
    """Return a time as Django shows those of fields; it leaves those of methods as they are."""
    return NOTHING if moment is None else date_format(moment, "DATETIME_FORMAT")


def link(view: str, row_id: UUID, text: str) -> str:
    return format_html('<a href="{}">{}</a>', reverse(view, args=(row_id,)), visible(text))
