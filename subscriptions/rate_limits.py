"""How often an API key may call, and what else is limited, over all web processes: counted in Redis.

A sliding window, in one atomic script. Calls signed by a subscription's secret, and those
without a key in development, are not counted.
"""

import logging
import math
import time
from functools import lru_cache
from typing import TYPE_CHECKING

import redis
from django.conf import settings
from limits import RateLimitItem, parse
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from subscriptions.api_keys import ApiKey
from subscriptions.problems import Problem

if TYPE_CHECKING:
    from rest_framework.views import APIView

logger = logging.getLogger(__name__)

# A Redis that does not answer within this is left alone for a while, in which no call waits
# for it and none is refused.
REDIS_TIMEOUT_SECONDS = 0.25
REDIS_AWAY_SECONDS = 5.0

# What counting raises while Redis is away, and over what is no count: anybody may have written it.
STUMBLES = (redis.RedisError, ArithmeticError, ValueError)

# Until when a Redis is left alone, by its URL.
_away_until: dict[str, float] = {}


class ApiKeyRateLimit(BaseThrottle):
    """Refuse (429) what a key calls beyond API_RATE_LIMIT."""

    def allow_request(self, request: Request, view: "APIView") -> bool:
        if settings.API_RATE_LIMIT and isinstance(request.auth, ApiKey):
            count(str(request.auth.id), parse(settings.API_RATE_LIMIT), whose="calls with this API key")
        return True


def count(name: str, limit: RateLimitItem, *, whose: str) -> None:
    """Count one call under `name`; raise Problem (429) if it is one too many. While Redis is away, none is.

    `whose` says in words which calls are limited.
    """
    url = settings.REDIS_URL
    if away_until := _away_until.get(url):
        if time.monotonic() < away_until:
            return
        # This call finds out whether Redis is back; the others do not wait for it.
        _away_until[url] = time.monotonic() + REDIS_AWAY_SECONDS
    try:
        is_within = _limiter(url).hit(limit, name)
        _away_until.pop(url, None)
        if not is_within:
            raise _too_many(limit, _limiter(url).get_window_stats(limit, name).reset_time, whose)
    except STUMBLES as error:
        _away_until[url] = time.monotonic() + REDIS_AWAY_SECONDS
        logger.warning("calls are not limited: Redis does not count", extra={"reason": str(error)})


def _too_many(limit: RateLimitItem, reset_time: float, whose: str) -> Problem:
    """Return the refusal, with the headers of draft-ietf-httpapi-ratelimit-headers."""
    window = limit.get_expiry()
    wait = min(max(math.ceil(reset_time - time.time()), 1), window)
    return Problem(
        status=429,
        code="rate_limited",
        detail=f"There may be no more {whose} than {limit}. Try again later.",
        headers={
            "Retry-After": str(wait),
            "RateLimit-Policy": f'"default";q={limit.amount};w={window}',
            "RateLimit": f'"default";r=0;t={wait}',
        },
    )


@lru_cache(maxsize=1)
def _limiter(url: str) -> SlidingWindowCounterRateLimiter:
    pool = redis.ConnectionPool.from_url(
        url, socket_timeout=REDIS_TIMEOUT_SECONDS, socket_connect_timeout=REDIS_TIMEOUT_SECONDS, retry=None
    )
    return SlidingWindowCounterRateLimiter(RedisStorage(url, connection_pool=pool))
