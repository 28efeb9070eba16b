"""ETag and If-Match (RFC 9110, section 13): nobody overwrites a change that they have not seen.

The tag is made of `updated_at`: what people change, not what the engine notes.
"""

from datetime import UTC, datetime, timedelta

from django.utils.http import parse_etags
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework.request import Request

from subscriptions.models import Subscription
from subscriptions.problems import Problem

# For the API documentation: what a call may send, and what an answer has.
IF_MATCH = OpenApiParameter(
    "If-Match",
    location=OpenApiParameter.HEADER,
    description="The ETag that the caller read. If the subscription was changed since: 412, and nothing is done.",
)
ETAG = OpenApiParameter(
    "ETag",
    location=OpenApiParameter.HEADER,
    response=[200, 201],
    description="Names this state of the subscription, for If-Match.",
)
STALE = OpenApiResponse(
    description="The subscription was changed since the caller read it: If-Match does not match. Read it again "
    "after Retry-After."
)

# The documented age of what the cache shows (subscriptions/cache.py).
RETRY_AFTER_SECONDS = 2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def etag_of(subscription: Subscription) -> str:
    """Return the strong ETag of a subscription: another one after each change that people make."""
    return f'"{(subscription.updated_at - _EPOCH) // timedelta(microseconds=1)}"'


def require_match(request: Request, subscription: Subscription) -> None:
    """Raise Problem (412) if the call has an If-Match that names another state of the subscription.

    For one whose row is locked: what is compared is what is changed.
    """
    given = request.headers.get("If-Match")
    if given is None:
        return
    wanted = parse_etags(given)
    if wanted != ["*"] and etag_of(subscription) not in wanted:
        # It may have been read in a process that had not yet heard of a change made before.
        detail = (
            "The subscription was changed since it was read, or up to two seconds before. Wait two seconds, "
            "read it again, and send If-Match with its ETag."
        )
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
        raise Problem(status=412, code="precondition_failed", detail=detail, headers=headers)
