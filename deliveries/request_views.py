"""The endpoints of webhook requests: list, read, replay, cancel."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Prefetch
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from deliveries import examples, operations
from deliveries.models import DeliveryAttempt, Trigger, WebhookRequest, WebhookRequestQuerySet
from deliveries.renderers import ExactJSONRenderer
from deliveries.request_serializers import NothingSerializer, RequestDetailSerializer, RequestFilterSerializer
from deliveries.serializers import RequestSerializer
from subscriptions import api_audit
from subscriptions.authentication import tenant_of
from subscriptions.examples import answered
from subscriptions.lists import NewestFirst, within
from subscriptions.problems import Problem

# A list's filters, by the field that each compares exactly.
EXACT_FILTERS = {
    "subscription": "subscription_id",
    "tenant": "tenant",
    "status": "status",
    "event_type": "event_type",
    "error": "error",
}


def narrow(queryset: WebhookRequestQuerySet, filters: dict[str, Any]) -> WebhookRequestQuerySet:
    """Limit requests to those that fit every filter given."""
    exact = {field: filters[name] for name, field in EXACT_FILTERS.items() if name in filters}
    received = within("received_at", filters.get("received_after"), filters.get("received_before"))
    return queryset.filter(received, **exact)


@extend_schema(tags=["requests"])
class RequestListView(ListAPIView[WebhookRequest]):
    """List webhook requests, newest first, without their payloads and attempts."""

    queryset = WebhookRequest.objects.none()
    serializer_class = RequestSerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> WebhookRequestQuerySet:
        filters = RequestFilterSerializer.read(self.request)
        requests = WebhookRequest.objects.for_tenant(tenant_of(self.request)).defer("payload").with_standing()
        return narrow(requests, filters)

    @extend_schema(
        operation_id="requests_list",
        parameters=[RequestFilterSerializer],
        examples=[answered(examples.REQUEST)],
        responses={
            200: RequestSerializer(many=True),
            400: OpenApiResponse(description="A filter is not known or not valid."),
        },
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self.list(request, *args, **kwargs)


class RequestView(APIView):
    """One webhook request with its payload and its attempts, oldest first."""

    renderer_classes = (ExactJSONRenderer,)

    @extend_schema(
        operation_id="requests_retrieve",
        tags=["requests"],
        responses=RequestDetailSerializer,
        examples=[answered(examples.SHOWN_REQUEST)],
    )
    def get(self, request: Request, request_id: UUID) -> Response:
        return Response(RequestDetailSerializer(find_request(request, request_id)).data)


REPLAY_NEEDLESS = "It is pending: it will be delivered without a replay. See its next_attempt_at and hold_reason."


class ReplayView(APIView):
    """Deliver a settled request again, with a new retry schedule and the same `webhook-id`.

    While a replay is under way another one changes nothing and is answered alike: clicked twice is one replay.
    """

    @extend_schema(
        operation_id="requests_replay",
        tags=["requests"],
        request=NothingSerializer,
        examples=[answered(examples.REPLAYED, status=202)],
        responses={
            202: OpenApiResponse(RequestSerializer, description="It will be delivered again."),
            404: OpenApiResponse(description="There is no such request."),
            409: OpenApiResponse(description="It is pending, or its subscription is disabled or deleted."),
        },
    )
    def post(self, request: Request, request_id: UUID) -> Response:
        found = _find_for_change(request, request_id)
        with transaction.atomic(), api_audit.recording(request, "replay", found):
            is_replayed = operations.replay_request(found)
        now = _find_for_change(request, request_id)
        if not is_replayed and now.trigger != Trigger.REPLAY:
            raise Problem(status=409, code="pending", detail=REPLAY_NEEDLESS)
        return Response(RequestSerializer(now).data, status=202)


class CancelView(APIView):
    """End a pending request. A call in flight is not called back: its attempt is logged and changes nothing."""

    @extend_schema(
        operation_id="requests_cancel",
        tags=["requests"],
        request=NothingSerializer,
        examples=[answered(examples.CANCELED)],
        responses={
            200: OpenApiResponse(RequestSerializer, description="It is canceled."),
            404: OpenApiResponse(description="There is no such request."),
            409: OpenApiResponse(description="It is settled."),
        },
    )
    def post(self, request: Request, request_id: UUID) -> Response:
        found = _find_for_change(request, request_id)
        with transaction.atomic(), api_audit.recording(request, "cancel", found):
            operations.cancel_request(found, "Canceled over the API.")
        return Response(RequestSerializer(_find_for_change(request, request_id)).data)


def _find_for_change(request: Request, request_id: UUID) -> WebhookRequest:
    """Return a request without its payload for a call whose body has to be empty."""
    NothingSerializer(data=request.data).is_valid(raise_exception=True)
    queryset = WebhookRequest.objects.for_tenant(tenant_of(request)).defer("payload").with_standing()
    return get_object_or_404(queryset, id=request_id)


def find_request(request: Request, request_id: UUID) -> WebhookRequest:
    """Return a webhook request that the caller may see; Http404 for any other."""
    attempts = DeliveryAttempt.objects.as_log()
    queryset = (
        WebhookRequest.objects.for_tenant(tenant_of(request))
        .select_related("event")
        .with_standing()
        .prefetch_related(Prefetch("attempts", queryset=attempts))
    )
    return get_object_or_404(queryset, id=request_id)
