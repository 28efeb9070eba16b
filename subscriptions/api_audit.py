"""What callers of the REST API change goes to the audit log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from django.db import Error
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.urls import ResolverMatch
from rest_framework.request import Request

from subscriptions import audit, problems
from subscriptions.api_keys import ApiKey
from subscriptions.audit import Actor, AuditEntry
from subscriptions.authentication import HasScope
from subscriptions.origin import address_of

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
VERBS = {"POST": "add", "PUT": "change", "PATCH": "change", "DELETE": "delete"}

# What a collection's objects are called elsewhere in the log.
KINDS = {"requests": "webhook request", "keys": "API key"}


def actor_of(request: HttpRequest | Request) -> Actor:
    """Return the API key that calls; in development there may be none."""
    key = getattr(request, "auth", None)
    address = address_of(getattr(request, "_request", request))
    if isinstance(key, ApiKey):
        return Actor(kind=AuditEntry.ActorKind.API_KEY, name=str(key), address=address)
    return Actor(kind=AuditEntry.ActorKind.NOBODY, address=address)


@contextmanager
def recording(request: Request, action: str, row: Model) -> Iterator[None]:
    """Record what becomes of a row within the block, in whose transaction it is. The row is locked."""
    unread = row.get_deferred_fields()
    stored = type(row)._base_manager.filter(pk=row.pk).defer(*unread)  # noqa: SLF001 - Django documents it
    before = stored.select_for_update(no_key=True).first()
    yield
    after = stored.first()
    if before is not None and after is not None:
        old, new = audit.changes(audit.snapshot(before), audit.snapshot(after))
        kind = str(row._meta.verbose_name)  # noqa: SLF001
        if new:
            audit.record(actor_of(request), action, kind=kind, object_id=row.pk, before=old, after=new)
    audit.note()


def record_new(request: Request, row: Model) -> None:
    """Record a row that was made, in the transaction that made it."""
    kind = str(row._meta.verbose_name)  # noqa: SLF001 - Django documents it
    stored = type(row)._base_manager.get(pk=row.pk)  # noqa: SLF001
    given = {name: value for name, value in audit.snapshot(stored).items() if value not in audit.EMPTY}
    audit.record(actor_of(request), "add", kind=kind, object_id=row.pk, after=given)


class ApiAuditMiddleware:
    """Record each call that needs the scope `manage` and succeeds, if its view has not done so itself.

    The views do it in the transaction of their change, and say what was before. This is for what
    changes nothing in the database, and so that no endpoint is ever forgotten.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.method in SAFE_METHODS:
            return self.get_response(request)
        with audit.noting() as is_noted:
            response = self.get_response(request)
            if response.status_code >= 400 or is_noted() or not _manages(request):
                return response
            try:
                _record_call(request, response)
            except Error as error:
                return problems.respond_to(error)
        return response


def _manages(request: HttpRequest) -> bool:
    match = request.resolver_match
    view = None if match is None else getattr(match.func, "cls", None)
    if view is None or HasScope not in view.permission_classes:
        return False
    return HasScope.scope_of(view, request.method or "") == ApiKey.Scope.MANAGE


def _record_call(request: HttpRequest, response: Any) -> None:
    """Record what was called: POST /subscriptions/ID/test is `test` of a subscription.

    By the route, whose only parameter is the id: a project may have included it under any prefix.
    """
    match = cast(ResolverMatch, request.resolver_match)
    path, _, rest = match.route.partition("<")
    collection = path.strip("/").rpartition("/")[2]
    verb = rest.partition(">")[2].strip("/")
    kind = KINDS.get(collection, collection.removesuffix("s").replace("-", " "))
    action = verb.replace("-", " ") or VERBS.get(request.method or "", "call")
    data = response.data if isinstance(getattr(response, "data", None), dict) else {}
    object_id = next(iter(match.kwargs.values()), data.get("id", ""))
    audit.record(actor_of(request), action, kind=kind, object_id=object_id, after=_given(response))


def _given(response: Any) -> dict[str, Any]:
    call = getattr(response, "renderer_context", {}).get("request")
    # A view that reads the stream by itself has left nothing to read again.
    data = getattr(call, "_full_data", None)
    return audit.given(data) if isinstance(data, dict) else {}
