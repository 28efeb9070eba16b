"""The endpoints of subscriptions, and the health check."""

from typing import Any
from uuid import UUID

from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.generics import ListAPIView
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from subscriptions import api_audit, examples
from subscriptions.authentication import tenant_of
from subscriptions.etags import ETAG, IF_MATCH, STALE, etag_of, require_match
from subscriptions.examples import answered, asked
from subscriptions.lists import LOCATION, NewestFirst, location_of
from subscriptions.models import Subscription, SubscriptionQuerySet
from subscriptions.problems import Problem
from subscriptions.serializers import (
    ChangedSubscriptionSerializer,
    NewSubscriptionSerializer,
    SubscriptionFilterSerializer,
    SubscriptionSerializer,
)


class HealthView(APIView):
    """The process lives. Touches neither PostgreSQL nor Redis."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        operation_id="health",
        tags=["health"],
        responses={200: {"type": "object", "properties": {"status": {"type": "string", "const": "ok"}}}},
        examples=[answered({"status": "ok"})],
    )
    def get(self, request: Request) -> Response:
        return Response({"status": "ok"})


@extend_schema(tags=["subscriptions"])
class SubscriptionListView(ListAPIView[Subscription]):
    """Subscriptions, newest first; and a new one, whose secret is in this one answer and never again."""

    queryset = Subscription.objects.none()
    serializer_class = SubscriptionSerializer
    pagination_class = NewestFirst

    def get_queryset(self) -> SubscriptionQuerySet:
        filters = SubscriptionFilterSerializer.read(self.request)
        found = Subscription.objects.existing().for_tenant(tenant_of(self.request))
        found = found.filter(**{name: filters[name] for name in ("tenant", "status") if name in filters})
        if "event_type" in filters:
            found = found.taking(filters["event_type"])
        return found.matching(filters["search"]) if "search" in filters else found

    @extend_schema(
        operation_id="subscriptions_list",
        parameters=[SubscriptionFilterSerializer],
        responses={200: SubscriptionSerializer(many=True)},
        examples=[answered(examples.SHOWN)],
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List subscriptions, the newest first. Filters narrow the list together."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="subscriptions_create",
        request=NewSubscriptionSerializer,
        parameters=[ETAG, LOCATION],
        responses={201: NewSubscriptionSerializer},
        examples=[asked(examples.NEW), answered(examples.SHOWN | {"secret": examples.SECRET}, status=201)],
    )
    def post(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Create a subscription. Its secret is in this one answer and never again."""
        serializer = NewSubscriptionSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        tenant = self._tenant_of_new(serializer.validated_data.get("tenant"))
        with transaction.atomic():
            subscription = serializer.save(tenant=tenant)
            api_audit.record_new(request, subscription)
        headers = headers_of(subscription) | {"Location": location_of(request, subscription.id)}
        return Response(serializer.data, status=201, headers=headers)

    def _tenant_of_new(self, given: str | None) -> str:
        """Return whose a new subscription is: the caller's, or for an operator as the call says."""
        tenant = tenant_of(self.request)
        if tenant is not None and given not in (None, tenant):
            raise ValidationError({"tenant": "This API key is bound to another tenant."}, code="wrong_tenant")
        return (given or "") if tenant is None else tenant


@extend_schema(tags=["subscriptions"])
class SubscriptionView(APIView):
    """One subscription, without its secret."""

    @extend_schema(
        operation_id="subscriptions_retrieve",
        parameters=[ETAG],
        responses=SubscriptionSerializer,
        examples=[answered(examples.SHOWN)],
    )
    def get(self, request: Request, subscription_id: UUID) -> Response:
        """Look at a subscription, without its secret.

        What was changed through another process of the service shows within two seconds.
        """
        return answer(find_subscription(request, subscription_id))

    @extend_schema(
        operation_id="subscriptions_change",
        request=ChangedSubscriptionSerializer,
        parameters=[IF_MATCH, ETAG],
        responses={200: SubscriptionSerializer, 412: STALE},
        examples=[asked({"description": "Invoices for the ledger"}), answered(examples.CHANGED)],
    )
    def patch(self, request: Request, subscription_id: UUID) -> Response:
        """Change a subscription: the fields given, each as a whole, and no others.

        Its tenant stays. Its status and its secret have calls of their own.
        """
        data = request.data  # read before the row is locked: the caller may be slow
        with transaction.atomic():
            subscription = lock_subscription(request, subscription_id)
            serializer = ChangedSubscriptionSerializer(subscription, data=data, partial=True)
            serializer.is_valid(raise_exception=True)
            with api_audit.recording(request, "change", subscription):
                serializer.save()
        return answer(subscription)


def answer(subscription: Subscription, **more: Any) -> Response:
    """Answer with a subscription and its ETag."""
    return Response(SubscriptionSerializer(subscription).data | more, headers=headers_of(subscription))


def headers_of(subscription: Subscription) -> dict[str, str]:
    # Some of these answers have a secret in them: nobody on the way keeps one.
    return {"ETag": etag_of(subscription), "Cache-Control": "no-store"}


def find_subscription(request: Request, subscription_id: UUID) -> Subscription:
    """Return a subscription that the caller may see, from the cache if it is there.

    Good enough to show it. Raises Problem (404) for one of another tenant just as for one that never was.
    """
    try:
        return Subscription.objects.cached(subscription_id, tenant=tenant_of(request))
    except Subscription.DoesNotExist:
        raise _missing() from None


def read_subscription(request: Request, subscription_id: UUID) -> Subscription:
    """Return a subscription as `find_subscription` does, but as it is now: to decide by it, or to call it."""
    try:
        return Subscription.objects.fresh(subscription_id, tenant=tenant_of(request))
    except Subscription.DoesNotExist:
        raise _missing() from None


def lock_subscription(request: Request, subscription_id: UUID) -> Subscription:
    """Return a subscription that the caller may change, its row locked until the transaction ends.

    The lock lets new requests refer to it. Raises Problem: 404 as `find_subscription`, 412 if the
    caller's If-Match names another state of it.
    """
    subscriptions = Subscription.objects.existing().for_tenant(tenant_of(request))
    try:
        subscription = subscriptions.select_for_update(no_key=True).get(id=subscription_id)
    except Subscription.DoesNotExist:
        raise _missing() from None
    require_match(request, subscription)
    return subscription


def _missing() -> Problem:
    return Problem(status=404, code="not_found", detail="There is no such subscription.")
