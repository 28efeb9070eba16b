"""The endpoints of operations: recover, bulk replay, their progress, their end."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from deliveries import bulk_runs, examples, readiness, sql
from deliveries.bulk import Operation
from deliveries.operation_serializers import (
    CountSerializer,
    NewOperationSerializer,
    OperationFilterSerializer,
    OperationSerializer,
    RecoverSerializer,
)
from deliveries.request_serializers import NothingSerializer
from subscriptions import audit
from subscriptions.api_audit import actor_of, record_new, recording
from subscriptions.authentication import tenant_of
from subscriptions.examples import answered, asked
from subscriptions.lists import NewestFirst, bounded
from subscriptions.problems import Problem
from subscriptions.views import read_subscription

# For the documentation: what is asked and what comes back.
RECOVER: dict[str, Any] = {
    "since": "2026-11-24T06:00:00Z",
    "until": "2026-11-24T08:00:00Z",
    "status": ["failed", "skipped"],
}
REPLAY: dict[str, Any] = {"kind": "replay", "tenant": "acme", "error": "timeout", "status": "failed"}
COUNTED = {"count": 1204}
RECOVERING: dict[str, Any] = {
    "id": "019ab40a-5c1e-7d42-9b1f-2a7c0e8d4411",
    "kind": "recover",
    "tenant": "acme",
    "selection": {
        "subscription": examples.SUBSCRIPTION_ID,
        "status": ["failed", "skipped"],
        "received_after": "2026-11-24T06:00:00+00:00",
        "received_before": "2026-11-24T08:00:00+00:00",
    },
    "status": "pending",
    "status_reason": "",
    "total": None,
    "done": 0,
    "requested_by": "support (whk_3f9a1c0b7d2e…)",
    "created_at": "2026-11-24T09:12:44.271828Z",
    "started_at": None,
    "finished_at": None,
}
RUNNING = RECOVERING | {
    "status": "running",
    "total": 1204,
    "done": 700,
    "started_at": "2026-11-24T09:12:44.314159Z",
}
CANCELED = RUNNING | {"status": "canceled", "finished_at": "2026-11-24T09:12:51.577215Z"}
REPLAYING = RECOVERING | {
    "kind": "replay",
    "tenant": "acme",
    "selection": {"tenant": "acme", "status": ["failed"], "error": "timeout"},
}

STARTED = {
    200: OpenApiResponse(CountSerializer, description="`dry_run`: how many requests it would bring back."),
    202: OpenApiResponse(OperationSerializer, description="It begins at once, in the background."),
    404: OpenApiResponse(description="There is no such subscription."),
    422: OpenApiResponse(description="To count them took too long and was given up."),
}
DISABLED = "This subscription is disabled. Enable it first."

# Operations of one tenant at once: all that are under way share OPERATION_RATE, whoever asked for them.
MOST_AT_ONCE = 20
RETRY_AFTER_SECONDS = 60


class RecoverView(APIView):
    """Deliver a subscription's requests again that failed or were skipped in a window of time.

    It runs in the background, at a pace that does not hold up what comes in meanwhile. Oldest first.
    """

    @extend_schema(
        operation_id="subscriptions_recover",
        tags=["operations"],
        request=RecoverSerializer,
        examples=[asked(RECOVER), answered(COUNTED), answered(RECOVERING, status=202)],
        responses=STARTED | {409: OpenApiResponse(description="The subscription is disabled.")},
    )
    def post(self, request: Request, subscription_id: UUID) -> Response:
        given = RecoverSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        subscription = read_subscription(request, subscription_id)
        if subscription.is_disabled:
            raise Problem(status=409, code="subscription_disabled", detail=DISABLED)
        data = given.validated_data
        selection = {
            "subscription": subscription.id,
            "status": data.get("status"),
            "received_after": data["since"],
            "received_before": data.get("until"),
        }
        return _start(request, Operation.Kind.RECOVER, selection, subscription.tenant, is_dry=data["dry_run"])


class OperationListView(ListAPIView[Operation]):
    """List recovers and bulk replays, newest first, or start a bulk replay."""

    queryset = Operation.objects.none()
    serializer_class = OperationSerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> QuerySet[Operation]:
        filters = OperationFilterSerializer.read(self.request)
        exact = {name: filters[name] for name in ("kind", "status") if name in filters}
        return Operation.objects.for_tenant(tenant_of(self.request)).filter(**exact)

    @extend_schema(
        operation_id="operations_list",
        tags=["operations"],
        parameters=[OperationFilterSerializer],
        examples=[answered(RECOVERING)],
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List recovers and bulk replays, newest first."""
        return self.list(request, *args, **kwargs)

    @extend_schema(
        operation_id="operations_create",
        tags=["operations"],
        request=NewOperationSerializer,
        examples=[asked(REPLAY), answered(COUNTED), answered(REPLAYING, status=202)],
        responses=STARTED,
    )
    def post(self, request: Request) -> Response:
        """Deliver all settled requests again that fit the filters, in the background.

        The filters are those of GET /requests, so that what was listed is what is replayed. At least one
        besides `status` is needed. Those of disabled subscriptions are left out.
        """
        given = NewOperationSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        selection = dict(given.validated_data)
        kind, is_dry = selection.pop("kind"), selection.pop("dry_run")
        tenant = _tenant(request, selection)
        return _start(request, kind, selection, tenant, is_dry=is_dry)


class OperationView(APIView):
    """One recover or bulk replay, and how far it has come."""

    @extend_schema(
        operation_id="operations_retrieve",
        tags=["operations"],
        responses=OperationSerializer,
        examples=[answered(RUNNING)],
    )
    def get(self, request: Request, operation_id: UUID) -> Response:
        return _answer(request, _find(request, operation_id))


class CancelOperationView(APIView):
    """Stop a recover or a bulk replay. What it has brought back is delivered all the same."""

    @extend_schema(
        operation_id="operations_cancel",
        tags=["operations"],
        request=NothingSerializer,
        examples=[answered(CANCELED)],
        responses={
            200: OpenApiResponse(OperationSerializer, description="It is stopped."),
            404: OpenApiResponse(description="There is no such operation."),
            409: OpenApiResponse(description="It is over."),
        },
    )
    def post(self, request: Request, operation_id: UUID) -> Response:
        NothingSerializer(data=request.data).is_valid(raise_exception=True)
        found = _find(request, operation_id)
        # While its requests are counted its row is held, for seconds (COUNT_TIMEOUT_MS).
        with (
            sql.deadline(readiness.ACTION_SECONDS),
            transaction.atomic(),
            recording(request, "cancel", found),
        ):
            is_canceled = Operation.objects.filter(id=found.id).cancel() > 0
        if not is_canceled:
            raise Problem(status=409, code="finished", detail="It is over: there is nothing left to stop.")
        return _answer(request, _find(request, operation_id))


def _answer(request: Request, operation: Operation, *, status: int = 200) -> Response:
    return Response(OperationSerializer(operation, context={"request": request}).data, status=status)


def _find(request: Request, operation_id: UUID) -> Operation:
    return get_object_or_404(Operation.objects.for_tenant(tenant_of(request)), id=operation_id)


def _tenant(request: Request, selection: dict[str, Any]) -> str | None:
    """Return the tenant whose requests are selected, and no other's; None is every tenant's."""
    bound_to = tenant_of(request)
    if bound_to is not None and selection.setdefault("tenant", bound_to) != bound_to:
        raise ValidationError({"tenant": "This API key is bound to another tenant."}, code="wrong_tenant")
    tenant: str | None = selection.get("tenant")
    if "subscription" in selection:
        owner = read_subscription(request, selection["subscription"]).tenant
        if tenant not in (None, owner):  # who would read the other's name in the selection
            raise Problem(status=404, code="not_found", detail="This tenant has no such subscription.")
        return owner
    return tenant


def _start(request: Request, kind: str, given: Mapping[str, Any], tenant: str | None, *, is_dry: bool) -> Response:
    """Count what is selected, or store an operation over it."""
    selection = {name: _stored(value) for name, value in given.items() if value is not None}
    selection.setdefault("status", list(bulk_runs.USUAL_STATUSES))
    if is_dry:
        audit.note()  # it changes nothing
        with bounded():
            return Response({"count": bulk_runs.selected(selection).count()})
    with transaction.atomic():
        Operation.objects.queue_up(tenant)
        _refuse_too_many(tenant)
        by = actor_of(request).name
        operation = bulk_runs.start(kind, selection, tenant=tenant, requested_by=by)
        record_new(request, operation)
    return _answer(request, operation, status=202)


def _refuse_too_many(tenant: str | None) -> None:
    """Raise Problem (429) while MOST_AT_ONCE operations are under way for a tenant; None is every tenant."""
    if Operation.objects.active().filter(tenant=tenant).count() >= MOST_AT_ONCE:
        detail = f"There are {MOST_AT_ONCE} operations under way already. Wait for one to end, or cancel it."
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        raise Problem(status=429, code="too_many_operations", detail=detail, headers=headers)


def _stored(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value
