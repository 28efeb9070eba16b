"""The endpoints of webhook requests: list, read, replay, cancel."""

from typing import Any
from uuid import UUID

from django.db.models import Prefetch
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from deliveries.models import DeliveryAttempt, WebhookRequest, WebhookRequestQuerySet
from deliveries.renderers import ExactJSONRenderer
from deliveries.request_serializers import RequestDetailSerializer, RequestFilterSerializer
from deliveries.serializers import RequestSerializer
from subscriptions.authentication import tenant_of
from subscriptions.lists import NewestFirst, bounded, within

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
        responses={
            200: RequestSerializer(many=True),
            400: OpenApiResponse(description="A filter is not known or not valid."),
            422: OpenApiResponse(description="It took too long and was given up; narrow it."),
        },
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        with bounded():
            return self.list(request, *args, **kwargs)


class RequestView(APIView):
    """One webhook request with its payload and its attempts, oldest first."""

    renderer_classes = (ExactJSONRenderer,)

    @extend_schema(operation_id="requests_retrieve", tags=["requests"], responses=RequestDetailSerializer)
    def get(self, request: Request, request_id: UUID) -> Response:
        return Response(RequestDetailSerializer(find_request(request, request_id)).data)


def find_request(request: Request, request_id: UUID) -> WebhookRequest:
    """Return a webhook request that the caller may see; Http404 for any other."""
    attempts = DeliveryAttempt.objects.order_by("attempt_number")
    queryset = (
        WebhookRequest.objects.for_tenant(tenant_of(request))
        .select_related("event")
        .with_standing()
        .prefetch_related(Prefetch("attempts", queryset=attempts))
    )
    return get_object_or_404(queryset, id=request_id)
