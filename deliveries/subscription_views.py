"""What becomes of a subscription's requests when somebody does something to the subscription."""

import logging
from uuid import UUID

from django.db import transaction
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from deliveries import envelopes, examples, orphans, readiness, sql, trials
from deliveries.serializers import NewTrialSerializer, TrialSerializer
from subscriptions import api_audit, parsers, views
from subscriptions.etags import IF_MATCH, STALE
from subscriptions.examples import answered, asked
from subscriptions.views import lock_subscription, read_subscription

logger = logging.getLogger(__name__)


class SubscriptionView(views.SubscriptionView):
    """One subscription."""

    @extend_schema(
        operation_id="subscriptions_delete",
        tags=["subscriptions"],
        parameters=[IF_MATCH],
        responses={204: OpenApiResponse(description="Deleted."), 412: STALE},
    )
    def delete(self, request: Request, subscription_id: UUID) -> Response:
        """Delete a subscription. Its pending requests are canceled; its history stays until purged."""
        with transaction.atomic():
            subscription = lock_subscription(request, subscription_id)
            with api_audit.recording(request, "delete", subscription):
                subscription.remove()
        # After the commit, and not under its lock: workers settle requests in the other order.
        try:
            with sql.deadline(readiness.ACTION_SECONDS):
                orphans.cancel(limit=orphans.CANCELED_AT_ONCE)
        except sql.AWAY:
            # It is deleted all the same: the job of every minute cancels what is left.
            logger.warning(
                "a deleted subscription's requests are still to be canceled",
                extra={"subscription_id": str(subscription_id)},
                exc_info=True,
            )
        return Response(status=204)


class TestView(APIView):
    """Call the receiver of one subscription now."""

    @extend_schema(
        operation_id="subscriptions_test",
        tags=["subscriptions"],
        request=NewTrialSerializer,
        responses=TrialSerializer,
        examples=[asked({"event_type": "invoice.paid", "body": {"invoice": 4711}}), answered(examples.TRIAL)],
    )
    def post(self, request: Request, subscription_id: UUID) -> Response:
        """Send a test call and answer what it came to.

        It is a real call, signed, with the subscription's headers and auth, under the same rules and limits
        as a delivery. Nothing of it is stored, retried or counted by the circuit, and a subscription that is
        paused or disabled can be tested too. At most 20 a minute for each subscription.
        """
        headers = request.headers
        body = parsers.read_body(request.stream, headers.get("Content-Length", ""))
        if body:
            parsers.check_headers(headers.get("Content-Type", ""), headers.get("Content-Encoding", ""))
        given = envelopes.read_trial(body)
        subscription = read_subscription(request, subscription_id)
        return Response(TrialSerializer(trials.run(subscription, given.event_type, bytes(given.body))).data)
