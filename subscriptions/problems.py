"""Errors as RFC 9457 problem documents, and the id of the request they belong to."""

import functools
import logging
import re
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import msgspec
from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import DataError, InterfaceError, InternalError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.response import Response

from subscriptions.secrets import UnreadableSecret

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
INVALID = "The request is not valid; see errors."

# Errors that are told of all the events of a batch together.
MAX_ERRORS = 100

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_current_request_id: ContextVar[str] = ContextVar("request_id", default="")


@dataclass(kw_only=True, eq=False)
class Problem(Exception):
    """A refusal to a caller: what RFC 9457 says of it, with a stable `code` for machines."""

    status: int
    code: str
    detail: str
    errors: list[dict[str, str]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": _current_request_id.get(),
        }
        return document | ({"errors": self.errors} if self.errors else {})

    def body(self) -> bytes:
        return msgspec.json.encode(self.document())


def invalid(errors: list[dict[str, str]]) -> Problem:
    """What was sent is not valid; each error has a `pointer`, a `code` and a `detail`."""
    return Problem(status=400, code="invalid", detail=INVALID, errors=errors)


def unavailable() -> Problem:
    """The database is away: nothing was stored, ask again."""
    return Problem(
        status=503,
        code="unavailable",
        detail="The service cannot store anything right now. Try again.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def misunderstood() -> Problem:
    """What came is not even a request: its host, its query string or its Content-Type makes no sense."""
    return Problem(status=400, code="bad_request", detail="The request could not be understood.")


def begin_request(given_id: str) -> str:
    """Take over the caller's Request-Id if it is harmless, else make one; return it."""
    request_id = given_id if _REQUEST_ID.fullmatch(given_id) else str(uuid.uuid4())
    _current_request_id.set(request_id)
    return request_id


def current_request_id() -> str:
    """Return the id of the request that is being answered; "" outside of one."""
    return _current_request_id.get()


class RequestIdMiddleware:
    """Give every request an id, and every answer the header that tells it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = begin_request(request.headers.get("Request-Id", ""))
        response = self.get_response(request)
        response["Request-Id"] = request_id
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Refuse in development mode as outside it: Django would show a stack, and all settings."""
        if isinstance(exception, (BadRequest, SuspiciousOperation)):
            return bad_request(request, exception)
        return None


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """Turn what a DRF view raised into a problem document; None lets Django handle the rest."""
    problem = _problem_of(error)
    if problem is None:
        return None
    response = Response(problem.document(), status=problem.status, headers=problem.headers)
    response.content_type = CONTENT_TYPE
    return response


def problem_for(error: Exception) -> Problem:
    """Return what to answer for `error`: a bug of ours is logged and told as 500."""
    problem = _problem_of(error)
    if problem is None:
        logger.error("unhandled error", exc_info=error)
        return _internal_error()
    return problem


def _internal_error() -> Problem:
    detail = "The service made a mistake. It has been logged."
    return Problem(status=500, code="internal_error", detail=detail)


def _problem_of(error: Exception) -> Problem | None:
    match error:
        case Problem():
            return error
        case Http404():
            return Problem(status=404, code="not_found", detail="There is no such thing here.")
        case PermissionDenied():
            return Problem(status=403, code="permission_denied", detail="You may not do this.")
        case RequestDataTooBig():
            return Problem(status=413, code="too_large", detail="The request body is too large.")
        case OperationalError() | InterfaceError() | InternalError():
            logger.warning("database unavailable", exc_info=error)
            return unavailable()
        case DataError():
            # A NUL, or a number that fits no column. Its text may hold what was sent: it is not logged.
            return Problem(status=400, code="invalid", detail="A value in the request cannot be stored.")
        case UnreadableSecret():
            logger.error("a secret cannot be read: a key was taken out of SECRET_KEYS", exc_info=error)
            return unavailable()
        case exceptions.ValidationError():
            return invalid(list(_validation_errors(error.get_full_details(), "")))
        case exceptions.APIException():
            return _problem_of_api_exception(error)
    return None


def _problem_of_api_exception(error: exceptions.APIException) -> Problem:
    headers = {}
    if (auth_header := getattr(error, "auth_header", None)) is not None:
        headers["WWW-Authenticate"] = auth_header
    if (wait := getattr(error, "wait", None)) is not None:
        headers["Retry-After"] = str(int(wait))
    codes = error.get_codes()
    code = codes if isinstance(codes, str) else "error"
    return Problem(status=error.status_code, code=code, detail=str(error.detail), headers=headers)


def _validation_errors(details: Any, pointer: str) -> Iterator[dict[str, str]]:
    """Flatten DRF's nested details into one entry per finding, with a JSON pointer (RFC 6901)."""
    if isinstance(details, list):
        for index, detail in enumerate(details):
            yield from _validation_errors(detail, pointer if _is_finding(detail) else f"{pointer}/{index}")
    elif _is_finding(details):
        yield {"pointer": pointer, "code": str(details["code"]), "detail": str(details["message"])}
    else:
        for name, detail in details.items():
            step = "" if name == "non_field_errors" else "/" + str(name).replace("~", "~0").replace("/", "~1")
            yield from _validation_errors(detail, pointer + step)


def _is_finding(details: Any) -> bool:
    """Return whether this is one finding, and not the findings of fields that a caller named so."""
    return isinstance(details, dict) and isinstance(details.get("message"), str)


def _respond(problem: Problem) -> HttpResponse:
    return HttpResponse(problem.body(), status=problem.status, headers=problem.headers, content_type=CONTENT_TYPE)


def respond_to(error: Exception) -> HttpResponse:
    """Answer for an error that was raised outside of a view."""
    return _respond(problem_for(error))


# Nothing is done here that a form from elsewhere could want; Django would refuse one with a page of HTML.
@csrf_exempt
def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _respond(Problem(status=404, code="not_found", detail="There is no such path."))


def read_only(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Have a page answer GET and HEAD alone: DRF would render its refusal of others as a page too."""

    # What could change something does not get through to the page; see `not_found`.
    @csrf_exempt
    @functools.wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            return view(request, *args, **kwargs)
        detail = f"Method “{request.method}” not allowed."
        headers = {"Allow": "GET, HEAD"}
        return _respond(Problem(status=405, code="method_not_allowed", detail=detail, headers=headers))

    return answer


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _respond(misunderstood())


def server_error(request: HttpRequest) -> HttpResponse:
    return _respond(_internal_error())
