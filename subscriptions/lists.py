"""Lists of the REST API: pages by cursor, newest first, and filters that refuse what they do not know."""

from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request

DEFAULT_LIMIT = 50
MAX_LIMIT = 250


class FilterSerializer(serializers.Serializer[Any]):
    """The query parameters of a list. Those of no field are refused, so that a typo is never silently dropped."""

    limit = serializers.IntegerField(
        min_value=1, max_value=MAX_LIMIT, default=DEFAULT_LIMIT, help_text="How many to return."
    )
    cursor = serializers.CharField(
        required=False, help_text="Where a page begins: taken from `next` or `previous`."
    )

    @classmethod
    def read(cls, request: Request) -> dict[str, Any]:
        """Return the parameters of a call by name; raise ValidationError (400)."""
        unknown = sorted(set(request.query_params) - set(cls().fields))
        if unknown:
            detail = serializers.ErrorDetail("This parameter is not known.", code="unknown")
            raise ValidationError(dict.fromkeys(unknown, detail))
        filters = cls(data=request.query_params)
        filters.is_valid(raise_exception=True)
        return dict(filters.validated_data)


class NewestFirst(CursorPagination):
    """Pages of 50, at most 250, by id: ids sort by the time they were made. No total."""

    ordering = "-id"
    page_size = DEFAULT_LIMIT
    page_size_query_param = "limit"
    max_page_size = MAX_LIMIT
    invalid_cursor_message = "This cursor is not one of ours."

    def decode_cursor(self, request: Request) -> Any:
        """Read where the page begins; raise ValidationError (400) for what is no cursor."""
        try:
            cursor = super().decode_cursor(request)
            if cursor is not None and cursor.position is not None:
                serializers.UUIDField().run_validation(cursor.position)
        except (serializers.ValidationError, NotFound):
            raise ValidationError({"cursor": self.invalid_cursor_message}, code="invalid_cursor") from None
        return cursor
