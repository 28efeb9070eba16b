"""The endpoints of ingestion and status."""

from uuid import UUID

from django.db.models import Prefetch
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from deliveries import examples, idempotency, ingestion, readiness
from deliveries.models import DeliveryAttempt, WebhookRequest
from deliveries.serializers import (
    IDEMPOTENCY_KEY,
    REPLAYED,
    AcceptedSerializer,
    IngestSerializer,
    ReadinessSerializer,
    RequestStatusSerializer,
    SubscriptionStatusSerializer,
)
from subscriptions import parsers
from subscriptions.authentication import tenant_of
from subscriptions.examples import answered, asked
from subscriptions.lists import DEFAULT_LIMIT, MAX_LIMIT, require_known
from subscriptions.views import find_subscription

INGEST_EXAMPLE = {
    "subscription_id": examples.SUBSCRIPTION_ID,
    "event_type": "invoice.paid",
    "body": examples.PAYLOAD,
}


class ReadyView(APIView):
    """Whether every part of the service works, one line each; 503 if one does not."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        operation_id="ready",
        tags=["health"],
        responses={200: ReadinessSerializer, 503: ReadinessSerializer},
        examples=[answered(examples.READY)],
    )
    def get(self, request: Request) -> Response:
        found = readiness.check()
        return Response(ReadinessSerializer(found).data, status=200 if found.is_ready else 503)


class IngestView(APIView):
    """Accept an event for one subscription, signed with its secret."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        operation_id="ingest",
        tags=["ingest"],
        request=IngestSerializer,
        examples=[
            asked(INGEST_EXAMPLE),
            answered({"request_id": examples.REQUEST["request_id"]}, status=202),
        ],
        parameters=[
            OpenApiParameter(
                ingestion.SIGNATURE_HEADER,
                location=OpenApiParameter.HEADER,
                required=True,
                description="`sha256=` and the hex HMAC-SHA256 of the raw request body under the secret.",
            ),
            IDEMPOTENCY_KEY,
            REPLAYED,
        ],
        responses={
            202: OpenApiResponse(AcceptedSerializer, description="Stored durably; it will be delivered."),
            204: OpenApiResponse(
                description="The subscription does not take this event type, or its filter is not met."
            ),
            400: OpenApiResponse(description="Not JSON, or a field is missing or of the wrong type."),
            401: OpenApiResponse(description="The signature is missing or wrong."),
            404: OpenApiResponse(description="There is no such subscription."),
            409: OpenApiResponse(description="The subscription is disabled."),
            413: OpenApiResponse(description="The body is too large."),
            415: OpenApiResponse(description="The body is not application/json in UTF-8."),
            422: OpenApiResponse(
                description="The payload does not fit the schema of its event type, or the Idempotency-Key was "
                "used with another body."
            ),
            503: OpenApiResponse(description="Nothing could be stored; try again after Retry-After."),
        },
    )
    def post(self, request: Request) -> Response:
        accepted = ingestion.accept(parsers.raw_body(request), request.headers)
        if accepted is None:
            return Response(status=204)
        replayed = {idempotency.REPLAYED_HEADER: "true"} if accepted.is_replayed else {}
        return Response({"request_id": accepted.request_id}, status=202, headers=replayed)


class RequestStatusView(APIView):
    """Where a request stands, with its whole attempt log, oldest first."""

    @extend_schema(
        operation_id="status_request",
        tags=["status"],
        responses=RequestStatusSerializer,
        examples=[answered(examples.REQUEST_STATUS)],
    )
    def get(self, request: Request, request_id: UUID) -> Response:
        attempts = DeliveryAttempt.objects.as_log()
        queryset = (
            WebhookRequest.objects.for_tenant(tenant_of(request))
            .select_related("subscription", "event")
            .defer("payload", "event__payload")
            .prefetch_related(Prefetch("attempts", queryset=attempts))
        )
        return Response(RequestStatusSerializer(get_object_or_404(queryset, id=request_id)).data)


class SubscriptionStatusView(APIView):
    """The most recent attempts of a subscription, newest first."""

    @extend_schema(
        operation_id="status_subscription",
        tags=["status"],
        parameters=[
            OpenApiParameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                description="How many attempts to return.",
            )
        ],
        responses=SubscriptionStatusSerializer,
        examples=[answered(examples.SUBSCRIPTION_STATUS)],
    )
    def get(self, request: Request, subscription_id: UUID) -> Response:
        limit = _limit(request)
        subscription = find_subscription(request, subscription_id)
        attempts = (
            DeliveryAttempt.objects.filter(subscription_id=subscription.id)
            .defer("response_headers", "response_body")
            .order_by("-attempted_at")[:limit]
        )
        status = {"subscription_id": subscription.id, "attempts": attempts}
        return Response(SubscriptionStatusSerializer(status).data)


def _limit(request: Request) -> int:
    require_known(request, ("limit",))
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MAX_LIMIT):
        raise ValidationError({"limit": f"The limit is a number from 1 to {MAX_LIMIT}."}, code="invalid_limit")
    return int(text)
