"""The endpoints of subscriptions, and the health check."""

from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.generics import CreateAPIView
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from subscriptions.authentication import tenant_of
from subscriptions.models import Subscription
from subscriptions.problems import Problem
from subscriptions.serializers import NewSubscriptionSerializer, SubscriptionSerializer


class HealthView(APIView):
    """The process lives. Touches neither PostgreSQL nor Redis."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        operation_id="health",
        tags=["health"],
        responses={200: {"type": "object", "properties": {"status": {"type": "string", "const": "ok"}}}},
    )
    def get(self, request: Request) -> Response:
        return Response({"status": "ok"})


@extend_schema(tags=["subscriptions"])
class SubscriptionListView(CreateAPIView[Subscription]):
    """Create a subscription. Its secret is in this one answer and never again."""

    queryset = Subscription.objects.none()
    serializer_class = NewSubscriptionSerializer

    def perform_create(self, serializer: BaseSerializer[Subscription]) -> None:
        tenant = tenant_of(self.request)
        if tenant is None:
            serializer.save()
            return
        if serializer.validated_data.get("tenant", tenant) != tenant:
            raise ValidationError({"tenant": "This API key is bound to another tenant."}, code="wrong_tenant")
        serializer.save(tenant=tenant)


@extend_schema(tags=["subscriptions"])
class SubscriptionView(APIView):
    """One subscription, without its secret."""

    @extend_schema(operation_id="subscriptions_retrieve", responses=SubscriptionSerializer)
    def get(self, request: Request, subscription_id: UUID) -> Response:
        return Response(SubscriptionSerializer(find_subscription(request, subscription_id)).data)


def find_subscription(request: Request, subscription_id: UUID) -> Subscription:
    """Return a subscription that the caller may see, from the cache if it is there.

    Raises Problem (404) for one of another tenant just as for one that never was.
    """
    missing = Problem(status=404, code="not_found", detail="There is no such subscription.")
    try:
        subscription = Subscription.objects.cached(subscription_id)
    except Subscription.DoesNotExist:
        raise missing from None
    if tenant_of(request) not in (None, subscription.tenant):
        raise missing
    return subscription
