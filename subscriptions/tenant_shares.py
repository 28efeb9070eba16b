"""How many calls of one tenant a process of web answers at once: half as many as it has threads.

Some calls take long: a batch that makes many requests, filters that look at large events, a
list that no index is for. All threads of all processes would else be waiting for one tenant.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from subscriptions.api_keys import ApiKey
from subscriptions.problems import Problem

if TYPE_CHECKING:
    from rest_framework.views import APIView

RETRY_AFTER_SECONDS = 1

# Where a request has what ends with its answer.
_ENDING = "webhooks.ending"

_calls: Counter[str] = Counter()
_lock = Lock()


class TenantShareMiddleware:
    """Give back, once a call is answered, what it held of its tenant's share."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with ExitStack() as ending:
            request.META[_ENDING] = ending
            return self.get_response(request)


class TenantShare(BaseThrottle):
    """Refuse (429) a call with a key that is bound to a tenant while the tenant's share is in use."""

    def allow_request(self, request: Request, view: "APIView") -> bool:
        tenant = request.auth.tenant if isinstance(request.auth, ApiKey) else None
        ending = request.META.get(_ENDING)
        if tenant is not None and ending is not None:
            ending.enter_context(_part_of(tenant))
        return True


@contextmanager
def _part_of(tenant: str) -> Iterator[None]:
    """Hold one call's part of a tenant's share; raise Problem (429) if there is none left."""
    with _lock:
        if _calls[tenant] >= max(settings.WEB_THREADS // 2, 1):
            raise _too_many()
        _calls[tenant] += 1
    try:
        yield
    finally:
        with _lock:
            _calls.subtract((tenant,))
            if not _calls[tenant]:
                del _calls[tenant]


def _too_many() -> Problem:
    return Problem(
        status=429,
        code="too_many_calls",
        detail="Too many calls of this tenant are being answered at this moment. Try again.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )
