"""The endpoints of event types: describe them, and say what their payloads have to look like."""

from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.exceptions import PermissionDenied
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from subscriptions import api_audit
from subscriptions.authentication import tenant_of
from subscriptions.catalog import EventType
from subscriptions.event_type_serializers import (
    ChangedEventTypeSerializer,
    EventTypeFilterSerializer,
    EventTypeSerializer,
)
from subscriptions.lists import LOCATION, NewestFirst, location_of
from subscriptions.problems import Problem

EXAMPLE = {
    "name": "invoice.paid",
    "description": "An invoice was paid in full.",
    "schema": {
        "type": "object",
        "required": ["invoice", "total"],
        "properties": {
            "invoice": {"type": "integer"},
            "total": {"type": "number", "minimum": 0},
        },
    },
    "example": {"invoice": 4711, "total": 199.9},
    "deprecated": False,
    "validation": "enforce",
}
STORED_EXAMPLE = EXAMPLE | {"created_at": "2026-11-24T12:00:00Z", "updated_at": "2026-11-24T12:00:00Z"}

NAME_TAKEN = "There is an event type of this name. Change that one with PATCH."

REFUSALS = {
    400: OpenApiResponse(description="A field is not known or not valid: a schema that is none, for instance."),
    401: OpenApiResponse(description="There is no API key, or it is unknown, expired or revoked."),
    403: OpenApiResponse(description="The API key does not have the scope `manage`, or is bound to a tenant."),
}
UNKNOWN_FILTER = {400: OpenApiResponse(description="A filter is not known or not valid.")}
MISSING = {404: OpenApiResponse(description="There is no such event type.")}
TAKEN = {409: OpenApiResponse(description=NAME_TAKEN)}


@extend_schema(tags=["event types"])
class EventTypeListView(ListAPIView[EventType]):
    """Event types, newest first, for every tenant; and a new one."""

    queryset = EventType.objects.none()
    serializer_class = EventTypeSerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[EventType]:
        filters = EventTypeFilterSerializer.read(self.request)
        exact = {name: filters[name] for name in ("deprecated", "validation") if name in filters}
        return EventType.objects.filter(**exact)

    @extend_schema(
        operation_id="event_types_list",
        parameters=[EventTypeFilterSerializer],
        examples=[OpenApiExample("As it is stored", STORED_EXAMPLE, response_only=True)],
        responses={200: EventTypeSerializer(many=True), 401: REFUSALS[401], **UNKNOWN_FILTER},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List event types, the newest first."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="event_types_create",
        parameters=[LOCATION],
        request=EventTypeSerializer,
        examples=[
            OpenApiExample("Payloads have to fit", EXAMPLE, request_only=True),
            OpenApiExample("As it is stored", STORED_EXAMPLE, response_only=True, status_codes=["201"]),
        ],
        responses={201: EventTypeSerializer, **REFUSALS, **TAKEN},
    )
    def post(self, request: Request) -> Response:
        """Describe an event type.

        With `validation` `warn`, a payload that does not fit the schema is taken, and what is wrong
        with it is shown with its event or request; with `enforce`, which needs a schema, it is refused
        with 422. A schema is JSON Schema 2020-12 and refers to nothing outside itself.
        Every process obeys within a few seconds.
        """
        _refuse_tenants(request)
        serializer = EventTypeSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        try:
            with transaction.atomic():
                event_type = serializer.save()
                api_audit.record_new(request, event_type)
        except IntegrityError:
            raise Problem(status=409, code="event_type_exists", detail=NAME_TAKEN) from None
        event_type.refresh_from_db()
        headers = {"Location": location_of(request, event_type.name)}
        return Response(EventTypeSerializer(event_type).data, status=201, headers=headers)


@extend_schema(tags=["event types"])
class EventTypeView(APIView):
    """One event type."""

    @extend_schema(
        operation_id="event_types_retrieve",
        examples=[OpenApiExample("As it is stored", STORED_EXAMPLE, response_only=True)],
        responses={200: EventTypeSerializer, 401: REFUSALS[401], **MISSING},
    )
    def get(self, request: Request, name: str) -> Response:
        """Return an event type."""
        return Response(EventTypeSerializer(get_object_or_404(EventType, name=name)).data)

    @extend_schema(
        operation_id="event_types_change",
        request=ChangedEventTypeSerializer,
        examples=[
            OpenApiExample("Deprecate it", {"deprecated": True}, request_only=True),
            OpenApiExample("As it is stored", STORED_EXAMPLE | {"deprecated": True}, response_only=True),
        ],
        responses={200: EventTypeSerializer, **REFUSALS, **MISSING},
    )
    def patch(self, request: Request, name: str) -> Response:
        """Change the fields given. Every process obeys within a few seconds."""
        _refuse_tenants(request)
        data = request.data  # read before the row is locked: the caller may be slow
        with transaction.atomic():
            event_type = get_object_or_404(EventType.objects.select_for_update(), name=name)
            serializer = ChangedEventTypeSerializer(event_type, data=data, partial=True)
            serializer.is_valid(raise_exception=True)
            with api_audit.recording(request, "change", event_type):
                serializer.save()
        return Response(EventTypeSerializer(event_type).data)


def _refuse_tenants(request: Request) -> None:
    """Raise PermissionDenied (403) for an API key of a tenant: the event types are the same for all."""
    if tenant_of(request) is not None:
        raise PermissionDenied("An API key that is bound to a tenant cannot change event types.")
