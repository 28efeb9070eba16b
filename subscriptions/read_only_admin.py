"""Pages about what happened: read-only, with lists that no huge table makes slow, and text shown inert."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, ClassVar, cast
from urllib.parse import urlencode
from uuid import UUID

import psycopg.errors
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core.exceptions import BadRequest, ValidationError
from django.core.paginator import Paginator
from django.db import OperationalError, connection, transaction
from django.db.models import Model, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import cached_property
from django.utils.html import format_html

from subscriptions.ids import CLOCK_SLACK_MS, lowest_id_at
from subscriptions.visible import visible

# What a list counts and pages through at most.
COUNT_LIMIT = 10_000

# Longer than this the database does not work for a list: deliveries come first. After two seconds the whole
# page would be given up.
LIST_TIMEOUT_MS = 1_500

# What a search may be for: with thousands of words the database would work until it is given up.
MOST_WORDS = 20

# No row has a longer one.
LONGEST_ID = 100

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


class HistoryFromLog(admin.ModelAdmin):
    """Pages whose history is what the audit log says, and whose lists answer what they offer to."""

    # What links to the list ask for, besides its filters.
    linked_lookups: ClassVar[frozenset[str]] = frozenset()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, or give up on one that keeps the database busy for too long.

        A POST reads the list as well, before its action, or in place of one that it does not name. An action
        that got in the way of workers, which the database settled in their favour, is done once more.
        """
        try:
            try:
                return self._changelist_in_time(request, extra_context)
            except OperationalError as error:
                if not isinstance(error.__cause__, psycopg.errors.DeadlockDetected):
                    raise
            return self._changelist_in_time(request, extra_context)
        except OperationalError as error:
            if not isinstance(error.__cause__, psycopg.errors.QueryCanceled) or not request.GET:
                raise
        too_slow = "That search took too long and was given up. Narrow it, to the past hour for instance."
        self.message_user(request, too_slow, messages.ERROR)
        return HttpResponseRedirect(request.path)

    def _changelist_in_time(self, request: HttpRequest, extra_context: dict[str, Any] | None) -> HttpResponse:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(LIST_TIMEOUT_MS)])
            return super().changelist_view(request, extra_context)

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Allow what the list's filters and the links to it ask for.

        Django allows any comparison with the row's own columns, those too that no page shows. Whoever
        writes one by hand could guess what is in them, and most make the database fail.
        """
        names = [str(getattr(item, "parameter_name", item)) for item in self.get_list_filter(request)]
        filters = {name + kind for name in names for kind in ("", "__exact", "__id__exact", "__isnull")}
        return lookup in filters | self.linked_lookups and "\0" not in value

    def to_field_allowed(self, request: HttpRequest, to_field: str) -> bool:
        """Allow the key alone as what rows are asked for by: Django would fail at names of relations."""
        return to_field == self.opts.pk.name

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        """Search for what was typed, unless it is more than anybody types: each word makes more conditions."""
        if len(search_term.split()) > MOST_WORDS:
            self.message_user(request, f"Search for at most {MOST_WORDS} words.", messages.ERROR)
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)

    def response_action(
        self, request: HttpRequest, queryset: QuerySet, *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        """Run an action, unless what is selected has no id: Django would fail."""
        try:
            for text in request.POST.getlist(ACTION_CHECKBOX_NAME):
                self.opts.pk.to_python(text)
        except ValidationError:
            raise BadRequest("What is selected is no id.") from None
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout TO DEFAULT")  # the limit was that of the list
        return super().response_action(request, queryset, *args, **kwargs)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Lead to the entries about this row."""
        found = urlencode({"object_id__exact": unquote(object_id)})
        return HttpResponseRedirect(f"{reverse('admin:subscriptions_auditentry_changelist')}?{found}")

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return the row; an empty `_to_field` in the query names no field, which Django takes it to."""
        if len(object_id) > LONGEST_ID:
            raise Http404  # Django's message that there is no such row would not fit into a cookie
        return super().get_object(request, object_id, from_field or None)


class ReadOnlyAdmin(HistoryFromLog):
    """Nothing is added, changed or deleted here, and no list counts its table."""

    ordering = ("-id",)
    sortable_by = ()
    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each facet counts the table
    search_fields = ("id",)  # shows the search box; get_search_results() does the search
    # Each page has its own: the condition that finds what an operator typed.
    matching: Callable[[str], Q]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        asked = request.GET.copy()
        asked.pop("o", None)  # Django would sort by any column, whatever `sortable_by` says
        request.GET = QueryDict(asked.urlencode())
        return super().changelist_view(request, extra_context)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        term = search_term.strip()
        return (queryset.filter(self.matching(term)) if term else queryset), False


def parse_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def preformatted(text: str) -> str:
    return format_html("<pre>{}</pre>", visible(text))


def shown_time(moment: datetime | None) -> str:
    """Return a time as Django shows those of fields; it leaves those of methods as they are."""
    return NOTHING if moment is None else date_format(moment, "DATETIME_FORMAT")


def link(view: str, row_id: UUID | str, text: str) -> str:
    return format_html('<a href="{}">{}</a>', reverse(view, args=(row_id,)), visible(text))
