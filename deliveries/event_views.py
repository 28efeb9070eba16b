"""The endpoints of events: publish, preview, list, look at one."""

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from django.db.models import Count, Prefetch, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from deliveries import envelopes, examples, idempotency, payload_checks, previews, publishing
from deliveries.envelopes import EventEnvelope
from deliveries.event_serializers import (
    MAX_TOLD_REQUESTS,
    EventDetailSerializer,
    EventFilterSerializer,
    EventSerializer,
    NewBatchSerializer,
    NewEventSerializer,
    PreviewSerializer,
    PublishedBatchSerializer,
    PublishedSerializer,
)
from deliveries.models import Event, WebhookRequest
from deliveries.payload_checks import PayloadRefused
from deliveries.publishing import NewEvent
from deliveries.renderers import ExactJSONRenderer
from deliveries.serializers import IDEMPOTENCY_KEY, REPLAYED
from subscriptions import parsers
from subscriptions.authentication import tenant_of
from subscriptions.examples import answered
from subscriptions.lists import NewestFirst, within
from subscriptions.models import ApiKey

REFUSALS = {
    400: OpenApiResponse(description="Not JSON, or a field is missing, not known or of the wrong type."),
    401: OpenApiResponse(description="There is no API key, or it is unknown, expired or revoked."),
    403: OpenApiResponse(description="The API key does not have the scope `publish`."),
    413: OpenApiResponse(description="The body is too large."),
    415: OpenApiResponse(description="The body is not application/json in UTF-8."),
    422: OpenApiResponse(
        description="The payload does not fit the schema of its event type, the Idempotency-Key was used with "
        "another body, or the event types, the schemas or the filters take too long."
    ),
    503: OpenApiResponse(description="Nothing could be stored; try again after Retry-After."),
}

EVENT_EXAMPLE: dict[str, Any] = {"event_type": "invoice.paid", "body": examples.PAYLOAD, "tenant": "acme"}
SMALL_EVENT_EXAMPLE = EVENT_EXAMPLE | {"body": {"invoice": 4712, "total": 19.9}}
PUBLISHED_EXAMPLE: dict[str, Any] = {
    "event_id": examples.EVENT["id"],
    "requests": [
        {
            "subscription_id": examples.SUBSCRIPTION_ID,
            "request_id": examples.REQUEST["request_id"],
            "status": "pending",
        }
    ],
}
IGNORED_EXAMPLE = {"event_id": "019ab3d0-7a53-7a08-8c41-6d2b9e0f3a17", "requests": []}
IGNORING_EXAMPLE = {
    "subscription_id": examples.SUBSCRIPTION_ID,
    "result": "ignore",
    "reason": "filter",
    "clause": "/body/total/$gte",
    "detail": "/body/total should be at least 100, and is 19.9.",
}


class EventListView(ListAPIView[Event]):
    """Publish an event, or list what was published."""

    queryset = Event.objects.none()
    serializer_class = EventSerializer
    pagination_class = NewestFirst
    scopes = {"GET": ApiKey.Scope.READ, "POST": ApiKey.Scope.PUBLISH}

    def get_queryset(self) -> QuerySet[Event]:
        filters = EventFilterSerializer.read(self.request)
        exact = {name: filters[name] for name in ("tenant", "event_type") if name in filters}
        published = within("published_at", filters.get("published_after"), filters.get("published_before"))
        events = Event.objects.for_tenant(tenant_of(self.request))
        return events.filter(published, **exact).defer("payload")

    @extend_schema(
        operation_id="events_list",
        tags=["events"],
        parameters=[EventFilterSerializer],
        examples=[answered(examples.EVENT)],
        responses={
            200: EventSerializer(many=True),
            400: OpenApiResponse(description="A filter is not known or not valid."),
            401: REFUSALS[401],
            403: OpenApiResponse(description="The API key does not have the scope `read`."),
        },
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List events, the newest first, without their payloads."""
        return self.list(request, *args, **kwargs)

    @extend_schema(
        operation_id="events_publish",
        tags=["events"],
        request=NewEventSerializer,
        parameters=[IDEMPOTENCY_KEY, REPLAYED],
        examples=[
            OpenApiExample("An invoice is paid", EVENT_EXAMPLE, request_only=True),
            OpenApiExample(
                "One subscription takes it", PUBLISHED_EXAMPLE, response_only=True, status_codes=["202"]
            ),
        ],
        responses={202: OpenApiResponse(PublishedSerializer, description="Stored durably."), **REFUSALS},
    )
    def post(self, request: Request) -> HttpResponse:
        """Publish an event to every subscription of its tenant that takes it.

        The event and its requests are stored in one transaction, which is committed before the
        answer. A disabled subscription's request is stored as skipped, so that it can be recovered.
        An event that nobody takes is stored too.
        """
        return _publish(request, is_batch=False)


class EventBatchView(APIView):
    """Publish up to 1,000 events at once."""

    scopes = {"POST": ApiKey.Scope.PUBLISH}

    @extend_schema(
        operation_id="events_publish_batch",
        tags=["events"],
        request=NewBatchSerializer,
        parameters=[IDEMPOTENCY_KEY, REPLAYED],
        examples=[
            OpenApiExample(
                "Two events, the second too small for anybody",
                {"events": [EVENT_EXAMPLE, SMALL_EVENT_EXAMPLE]},
                request_only=True,
            ),
            OpenApiExample(
                "As they are answered",
                {"events": [PUBLISHED_EXAMPLE, IGNORED_EXAMPLE]},
                response_only=True,
                status_codes=["202"],
            ),
        ],
        responses={202: OpenApiResponse(PublishedBatchSerializer, description="Stored durably."), **REFUSALS},
    )
    def post(self, request: Request) -> HttpResponse:
        """Publish up to 1,000 events, all or none of them.

        They are answered in their order. If one is refused, none is stored. The errors tell of all
        that are refused, the first 100 of them, and the pointers name each: `/events/7/event_type`.
        What is no event is told first (400), and which payloads do not fit their schemas once all
        are events (422). The whole body may have MAX_BODY_BYTES.
        """
        return _publish(request, is_batch=True)


class EventPreviewView(APIView):
    """Say what would become of an event."""

    scopes = {"POST": ApiKey.Scope.PUBLISH}

    @extend_schema(
        operation_id="events_preview",
        tags=["events"],
        request=NewEventSerializer,
        examples=[
            OpenApiExample("A small invoice is paid", SMALL_EVENT_EXAMPLE, request_only=True),
            OpenApiExample(
                "A filter is not met",
                {"subscriptions": [IGNORING_EXAMPLE]},
                response_only=True,
                status_codes=["200"],
            ),
        ],
        responses={
            200: PreviewSerializer,
            **{status: REFUSALS[status] for status in (400, 401, 403, 415)},
            413: OpenApiResponse(description="The body is too large, or the answer would be."),
            422: OpenApiResponse(
                description="The payload does not fit the schema of its event type, or the filters of the "
                "subscriptions take too long."
            ),
        },
    )
    def post(self, request: Request) -> Response:
        """Say for each subscription of the tenant whether it would get this event, and if not, why.

        Nothing is stored and nothing is sent.
        """
        tenant = tenant_of(request)
        [event] = _checked(_events([envelopes.read_event(parsers.raw_body(request), tenant)], tenant))
        return Response(PreviewSerializer({"subscriptions": previews.forecasts(event)}).data)


class EventView(APIView):
    """One event."""

    renderer_classes = (ExactJSONRenderer,)

    @extend_schema(
        operation_id="events_retrieve",
        tags=["events"],
        examples=[answered(examples.SHOWN_EVENT)],
        responses={
            200: EventDetailSerializer,
            401: REFUSALS[401],
            404: OpenApiResponse(description="There is no such event."),
        },
    )
    def get(self, request: Request, event_id: UUID) -> Response:
        """Return an event with its payload and its first 1,000 requests."""
        requests = WebhookRequest.objects.defer("payload").order_by("id")[:MAX_TOLD_REQUESTS]
        events = (
            Event.objects.for_tenant(tenant_of(request))
            .annotate(request_count=Count("requests"))
            .prefetch_related(Prefetch("requests", queryset=requests, to_attr="told_requests"))
        )
        return Response(EventDetailSerializer(get_object_or_404(events, id=event_id)).data)


def _publish(request: Request, *, is_batch: bool) -> HttpResponse:
    body = parsers.raw_body(request)
    tenant = tenant_of(request)
    read = envelopes.read_batch(body, tenant) if is_batch else [envelopes.read_event(body, tenant)]
    key = idempotency.Key.of_publish(request.headers, tenant, body)
    events = _events(read, tenant)
    # Before the payloads are checked: the schema may have changed since the first call.
    answer = publishing.replayed(key)
    if answer is None:
        answer = publishing.publish_call(_checked(events, is_batch=is_batch), key, is_batch=is_batch)
    headers = {idempotency.REPLAYED_HEADER: "true"} if answer.is_replayed else {}
    return HttpResponse(answer.body, status=202, content_type="application/json", headers=headers)


def _events(read: Sequence[EventEnvelope], tenant: str | None) -> list[NewEvent]:
    """Return the events that were read, each for the tenant that it names, or that the caller is."""
    return [
        NewEvent(
            event_type=envelope.event_type,
            payload=bytes(envelope.body),
            tenant=(tenant or "") if isinstance(envelope.tenant, msgspec.UnsetType) else envelope.tenant,
        )
        for envelope in read
    ]


def _checked(events: Sequence[NewEvent], *, is_batch: bool = False) -> list[NewEvent]:
    """Return the events with what their schemas find; raise PayloadRefused with the errors of all of them.

    The clock is looked at between events, so that one by itself is always checked.
    """
    checked, errors = [], []
    until = time.monotonic() + payload_checks.CHECK_SECONDS
    for index, event in enumerate(events):
        if index and time.monotonic() > until:
            raise payload_checks.too_slow()
        pointer = f"/events/{index}/body" if is_batch else "/body"
        try:
            found = payload_checks.findings_of(event.event_type, event.payload, pointer=pointer)
        except PayloadRefused as refused:
            errors += refused.errors
            continue
        checked.append(event.with_findings(found))
    if errors:
        raise PayloadRefused(errors)
    return checked
