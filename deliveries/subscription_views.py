"""What becomes of a subscription's requests when somebody does something to the subscription."""

from uuid import UUID

from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from deliveries import orphans
from subscriptions import views
from subscriptions.views import lock_subscription


class SubscriptionView(views.SubscriptionView):
    """One subscription."""

    @extend_schema(operation_id="subscriptions_delete", tags=["subscriptions"], responses={204: None})
    def delete(self, request: Request, subscription_id: UUID) -> Response:
        """Delete a subscription. Its pending requests are canceled; its history stays until purged."""
        with transaction.atomic():
            lock_subscription(request, subscription_id).remove()
        # After the commit, and not under its lock: workers settle requests in the other order.
        orphans.cancel(limit=orphans.CANCELED_AT_ONCE)
        return Response(status=204)
