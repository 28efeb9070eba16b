"""What can be done to one subscription: pause, resume, enable, disable, rotate its secret."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from subscriptions import api_audit, examples, secrets
from subscriptions.etags import ETAG, IF_MATCH, STALE
from subscriptions.examples import answered, asked
from subscriptions.models import Subscription, SubscriptionQuerySet
from subscriptions.problems import Problem
from subscriptions.serializers import (
    NewSubscriptionSerializer,
    ReasonSerializer,
    RotationSerializer,
    SubscriptionSerializer,
)
from subscriptions.views import answer, lock_subscription

Verb = Callable[[SubscriptionQuerySet, str], int]

VERB: dict[str, Any] = {
    "tags": ["subscriptions"],
    "request": ReasonSerializer,
    "parameters": [IF_MATCH, ETAG],
    "responses": {200: SubscriptionSerializer, 412: STALE},
}
DISABLED = {409: OpenApiResponse(description="The subscription is disabled.")}


def reason_of(example: dict[str, Any]) -> OpenApiExample:
    """Return the example of the call that is answered with this subscription."""
    return asked({"reason": example["status_reason"]})


def move(request: Request, subscription_id: UUID, verb: Verb, *, refused_statuses: Sequence[str] = ()) -> Response:
    """Move one subscription to another status, and answer with it; one that is there already stays as it is."""
    given = ReasonSerializer(data=request.data)
    given.is_valid(raise_exception=True)
    with transaction.atomic():
        subscription = lock_subscription(request, subscription_id)
        if subscription.status in refused_statuses:
            raise Problem(status=409, code="subscription_disabled", detail="It is disabled: enable it instead.")
        with api_audit.recording(request, verb.__name__, subscription):
            verb(Subscription.objects.filter(id=subscription_id), given.validated_data["reason"])
        subscription.refresh_from_db()
    return answer(subscription)


class PauseView(APIView):
    """Pause a subscription: it accepts events and holds them. What is held spends no attempt."""

    @extend_schema(
        operation_id="subscriptions_pause",
        examples=[reason_of(examples.PAUSED), answered(examples.PAUSED)],
        **VERB | {"responses": VERB["responses"] | DISABLED},
    )
    def post(self, request: Request, subscription_id: UUID) -> Response:
        disabled = Subscription.Status.DISABLED
        return move(request, subscription_id, SubscriptionQuerySet.pause, refused_statuses=[disabled])


class ResumeView(APIView):
    """Resume a paused subscription: what it held is delivered now."""

    @extend_schema(
        operation_id="subscriptions_resume",
        examples=[reason_of(examples.RESUMED), answered(examples.RESUMED)],
        **VERB | {"responses": VERB["responses"] | DISABLED},
    )
    def post(self, request: Request, subscription_id: UUID) -> Response:
        disabled = Subscription.Status.DISABLED
        return move(request, subscription_id, SubscriptionQuerySet.resume, refused_statuses=[disabled])


class EnableView(APIView):
    """Enable a disabled subscription, with a closed circuit and a clean slate; one that is paused stays so."""

    @extend_schema(
        operation_id="subscriptions_enable",
        examples=[reason_of(examples.ENABLED), answered(examples.ENABLED)],
        **VERB,
    )
    def post(self, request: Request, subscription_id: UUID) -> Response:
        return move(request, subscription_id, SubscriptionQuerySet.enable)


class DisableView(APIView):
    """Disable a subscription: ingest calls get 409, and what is pending waits until it is enabled."""

    @extend_schema(
        operation_id="subscriptions_disable",
        examples=[reason_of(examples.DISABLED), answered(examples.DISABLED)],
        **VERB,
    )
    def post(self, request: Request, subscription_id: UUID) -> Response:
        return move(request, subscription_id, SubscriptionQuerySet.disable)


class RotateSecretView(APIView):
    """Give a subscription another secret, which is in this one answer and never again.

    For the time of the overlap ingest calls may be signed with either secret, and deliveries carry a signature
    of each in `webhook-signature`, newest first. Their `X-Webhook-Signature` has room for one, the new
    secret's: a receiver that verifies that header needs the new secret first. A secret that was still
    overlapping from an earlier rotation ends.
    """

    @extend_schema(
        operation_id="subscriptions_rotate_secret",
        tags=["subscriptions"],
        request=RotationSerializer,
        parameters=[IF_MATCH, ETAG],
        responses={200: NewSubscriptionSerializer, 412: STALE},
        examples=[asked({"overlap_seconds": 3600}), answered(examples.ROTATED)],
    )
    def post(self, request: Request, subscription_id: UUID) -> Response:
        given = RotationSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        secret = given.validated_data.get("secret") or secrets.make()
        overlap = timedelta(seconds=given.validated_data["overlap_seconds"])
        with transaction.atomic():
            subscription = lock_subscription(request, subscription_id)
            with api_audit.recording(request, "rotate secret", subscription):
                subscription.rotate_secret(secret, overlap=overlap)
        return answer(subscription, secret=secret)
