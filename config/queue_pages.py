"""RQ's own pages in the console: what waits, what runs, what failed, who works. For superusers only."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, cast

from csp.constants import SELF, UNSAFE_INLINE
from csp.decorators import csp_replace
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import Error
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import URLPattern, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django_rq.urls import get_admin_urlpatterns, get_api_urlpatterns
from redis.exceptions import RedisError

from deliveries import queue
from subscriptions import audit
from subscriptions.visible import visible, visible_page

logger = logging.getLogger(__name__)

View = Callable[..., HttpResponse]

# They put styles into their pages, and scripts, which stay out: they only make whole rows clickable.
with_styles = csp_replace({"style-src": [SELF, UNSAFE_INLINE]})


def urls() -> list[URLPattern]:
    """Return all of the pages, those too that RQ would show to whoever is on the staff or has a token."""
    queue.trust_no_jobs()
    with_token = get_api_urlpatterns()
    for pattern in with_token:
        pattern.callback = _for_superusers(pattern.callback)
    return [*with_token, *get_admin_urlpatterns(view_wrapper=_for_superusers)]


def _for_superusers(view: View) -> View:
    @wraps(view)
    def inner(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        user = cast(User, request.user)
        if not user.is_superuser:
            raise PermissionDenied
        if request.method == "POST":
            # The queue holds nothing but wake-ups: what is done here is told, and loses nothing.
            audit.record(audit.user_actor(request, user), "change queue", kind="queue", object_id=_name(request))
        if "name[]" in request.GET:
            # The page of figures would show everybody these alone from then on.
            request.GET = QueryDict()
        try:
            answer = view(request, *args, **kwargs)
        except RedisError:
            messages.error(request, "Redis does not answer.")
            return HttpResponseRedirect(reverse("admin:index"))
        except (Http404, PermissionDenied, Error):
            raise
        except Exception as error:  # RQ's pages look at nothing before they use it: anybody may have written it
            logger.warning("a page of RQ's cannot be shown", extra={"page": _name(request), "reason": repr(error)})
            messages.error(request, "There is no such thing in Redis, or no longer.")
            home = reverse("django_rq:home")
            # Unless that is what cannot be shown: anything may be in Redis.
            return HttpResponseRedirect(home if request.path != home else reverse("admin:index"))
        return _harmless(request, answer)

    return cast(View, with_styles(admin.site.admin_view(inner)))


def _harmless(request: HttpRequest, answer: HttpResponse) -> HttpResponse:
    """Return the answer with its text visible, and no other that leads away than to the first page."""
    if isinstance(answer, HttpResponseRedirect):
        # RQ leads to where a form says, or where the browser came from.
        is_ours = url_has_allowed_host_and_scheme(
            answer.url, {request.get_host()}, require_https=request.is_secure()
        )
        return answer if is_ours else HttpResponseRedirect(reverse("django_rq:home"))
    if answer.get("Content-Type", "").startswith("text/html"):
        answer.content = visible_page(answer.content.decode())
    return answer


def _name(request: HttpRequest) -> str:
    """Return what is acted upon, such as `queues/0/empty/`."""
    return visible(request.path.removeprefix(reverse("django_rq:home")))
