"""Lists of the REST API: pages by cursor, newest first, and filters that refuse what they do not know."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import psycopg.errors
from django.db import OperationalError, connection, transaction
from django.db.models import Q
from django.utils.encoding import escape_uri_path
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from subscriptions.ids import CLOCK_SLACK_MS, lowest_id_at
from subscriptions.problems import Problem

DEFAULT_LIMIT = 50
MAX_LIMIT = 250

# A page of 250 of the largest subscriptions would be 30 MB, and take six times as much memory to write.
MAX_BYTES = 4_000_000

# Longer than this the database does not work for a list: deliveries come first.
TIMEOUT_MS = 1_500


class FilterSerializer(serializers.Serializer[Any]):
    """The query parameters of a list. Those of no field are refused, so that a typo is never silently dropped."""

    limit = serializers.IntegerField(
        min_value=1,
        max_value=MAX_LIMIT,
        default=DEFAULT_LIMIT,
        help_text="How many to return at most: a page ends before it has 4 MB.",
    )
    cursor = serializers.CharField(
        required=False, help_text="Where a page begins: taken from `next` or `previous`."
    )

    def get_fields(self) -> dict[str, Any]:
        """Take texts as they are: a space in one is looked for."""
        fields = super().get_fields()
        for field in fields.values():
            if isinstance(field, serializers.CharField):
                field.trim_whitespace = False
        return fields

    @classmethod
    def read(cls, request: Request) -> dict[str, Any]:
        """Return the parameters of a call by name; raise ValidationError (400)."""
        given = request.query_params
        require_known(request, cls().fields)
        # As a dict: of a query, DRF would take an empty text for a parameter that is not there.
        filters = cls(data=given.dict())
        filters.is_valid(raise_exception=True)
        return dict(filters.validated_data)


def require_known(request: Request, names: Iterable[str]) -> None:
    """Raise ValidationError (400) if a call has another parameter than these, or one of them twice."""
    given = request.query_params
    if unknown := sorted(set(given) - set(names)):
        detail = serializers.ErrorDetail("This parameter is not known.", code="unknown")
        raise ValidationError(dict.fromkeys(unknown, detail))
    if repeated := sorted(name for name, values in given.lists() if len(values) > 1):
        detail = serializers.ErrorDetail("Give this parameter once.", code="repeated")
        raise ValidationError(dict.fromkeys(repeated, detail))


class NewestFirst(CursorPagination):
    """Pages of 50, at most 250, by id: ids sort by the time they were made. No total.

    A page ends early before it has MAX_BYTES, but never empty: the rest is on the next one.
    Each is read within TIMEOUT_MS, whatever the filters: those that no index is for walk the ids.
    """

    ordering = "-id"
    page_size = DEFAULT_LIMIT
    page_size_query_param = "limit"
    invalid_cursor_message = "This cursor is not one of ours."

    def paginate_queryset(self, queryset: Any, request: Request, view: APIView | None = None) -> list[Any] | None:
        """Read a page; raise Problem (422) if that takes too long."""
        with bounded():
            return super().paginate_queryset(queryset, request, view)

    def get_page_size(self, request: Request) -> int:
        """Read `limit` as FilterSerializer does, which has refused what is none; DRF takes 5.0 for no limit."""
        limit: int = serializers.IntegerField().run_validation(request.query_params.get("limit", DEFAULT_LIMIT))
        return limit

    def get_paginated_response(self, data: Any) -> Response:
        return super().get_paginated_response(self._cut(data))

    def _cut(self, data: Sequence[Any]) -> Sequence[Any]:
        """Leave out of a page what is too much, at the end that it was read towards."""
        page = self.page or []
        is_backwards = self.cursor is not None and self.cursor.reverse
        count = _how_many_fit(reversed(data) if is_backwards else data)
        if count == len(data):
            return data
        # As if a shorter page had been asked for.
        if is_backwards:
            self.has_previous, self.previous_position = True, str(page[-count - 1].pk)
            self.page = page[-count:]
            return data[-count:]
        self.has_next, self.next_position = True, str(page[count].pk)
        self.page = page[:count]
        return data[:count]

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return what a page looks like, in the words of OpenAPI 3.1; the example is the first and only page."""
        link = {"type": ["string", "null"], "format": "uri", "example": None}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {"next": link, "previous": link.copy(), "results": schema},
        }

    def decode_cursor(self, request: Request) -> Any:
        """Read where the page begins; raise ValidationError (400) for what is no cursor."""
        try:
            cursor = super().decode_cursor(request)
            if cursor is not None and cursor.position is not None:
                serializers.UUIDField().run_validation(cursor.position)
        except (serializers.ValidationError, NotFound):
            raise ValidationError({"cursor": self.invalid_cursor_message}, code="invalid_cursor") from None
        return cursor


def _how_many_fit(members: Iterable[Any]) -> int:
    count, size = 0, 0
    for member in members:
        size += len(json.dumps(member, ensure_ascii=False, default=str).encode())
        if count and size > MAX_BYTES:
            break
        count += 1
    return count


def within(field: str, since: datetime | None, until: datetime | None) -> Q:
    """Return the condition that `field` is at `since` or later, and before `until`; None does not limit.

    The ids, which are made at the same moment and are indexed, are limited along with it.
    """
    condition = Q()
    if since is not None:
        condition &= Q(**{f"{field}__gte": since}, id__gte=lowest_id_at(since, slack_ms=-CLOCK_SLACK_MS))
    if until is not None:
        condition &= Q(**{f"{field}__lt": until}, id__lt=lowest_id_at(until, slack_ms=CLOCK_SLACK_MS))
    return condition


LOCATION = OpenApiParameter(
    "Location",
    location=OpenApiParameter.HEADER,
    response=[201],
    description="The path of what was made.",
)


def location_of(request: Request, member: object) -> str:
    """Return the path of what was added to the list that `request` posted to, under its prefix if it has one."""
    return f"{escape_uri_path(request.path)}/{member}"


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Have the database give up on what takes too long within the block.

    Raises Problem (422): the caller has to ask for less, since to ask again would not help.
    """
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [str(TIMEOUT_MS)])
            yield
    except OperationalError as error:
        if not isinstance(error.__cause__, psycopg.errors.QueryCanceled):
            raise
        detail = "This took too long and was given up. Ask for less: one subscription, or a shorter time."
        raise Problem(status=422, code="too_slow", detail=detail) from None
