"""The WSGI application: Django, and in front of it a door of its own for POST /ingest.

Accepting is most of what the service does, and Django with DRF takes three times as long
over it as the accepting itself. Both doors call the same function and answer the same.
"""

import io
import logging
import os
import sys
from collections.abc import Iterable
from http import HTTPStatus
from ipaddress import AddressValueError, IPv6Address
from typing import TYPE_CHECKING, Any

from django.core import checks
from django.core.exceptions import DisallowedHost, ImproperlyConfigured, SuspiciousOperation
from django.core.handlers.wsgi import WSGIRequest
from django.core.wsgi import get_wsgi_application
from django.http import parse_cookie
from django.utils.functional import cached_property

from config import keys, lifetimes

lifetimes.end_as_told_by_web_server()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
try:
    keys.require()
    django_application = get_wsgi_application()
except ImproperlyConfigured as error:
    sys.exit(f"Cannot start: {error}")

# What the commands of manage.py refuse to run with, the web processes refuse as well.
for finding in checks.run_checks():
    if finding.is_serious():
        sys.exit(f"Cannot start: {finding.msg} {finding.hint or ''}")
    logging.getLogger(__name__).warning(finding.msg, extra={"hint": finding.hint, "check": finding.id})

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

from deliveries import idempotency, ingestion  # noqa: E402 - the apps have to be loaded first
from subscriptions import parsers, problems  # noqa: E402

# The longest that anybody needs have some 100; what Python takes to read one grows with the square of its length.
MAX_CONTENT_TYPE_LENGTH = 1_000


class Request(WSGIRequest):
    """A call whose query string is in UTF-8, whatever codec its Content-Type names, whose cookies are text, and
    whose host is one.

    Some of Python's codecs make lone surrogates of ASCII, which no answer can hold; and Python keeps every name
    that it was asked for and does not know, for ever.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        """Read what Django may refuse; raise SuspiciousOperation.

        Later in development mode it would answer a page with all settings in it, and take half a minute of work
        for that over a query with too many fields, which fails again wherever the page shows it.
        """
        super().__init__(environ)
        self.get_host()
        _ = self.GET
        if self.content_type == "application/x-www-form-urlencoded":  # multipart is refused in words
            _ = self.POST

    def get_host(self) -> str:
        """Refuse what Django takes for an address of IPv6 and urllib does not, when it makes a URL of it."""
        host = super().get_host()
        if host.startswith("["):
            try:
                IPv6Address(host[1 : host.index("]")])
            except AddressValueError:
                raise DisallowedHost("What the Host has in brackets is no address.") from None
        return host

    @cached_property
    def COOKIES(self) -> dict[str, str]:  # type: ignore[override]  # noqa: N802 - as Django has it
        """Leave out what is in quotes, as none of ours is.

        There a cookie may have a NUL, which PostgreSQL cannot look for among the sessions; and what some
        releases of Python 3.11 and 3.12 take to read one grows with the square of its length (CVE-2024-7592).
        """
        parts = self.environ.get("HTTP_COOKIE", "").split(";")
        return parse_cookie(";".join(part for part in parts if '"' not in part))

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        self.content_type = meta.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        self.content_params = {}


django_application.request_class = Request


def application(environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/ingest" and environ["REQUEST_METHOD"] == "POST":
        return ingest(environ, start_response)
    try:
        _check_content_type(environ.get("CONTENT_TYPE", ""))
        _bound_body(environ)
        return django_application(environ, start_response)
    except problems.Problem as problem:
        request_id = problems.begin_request(environ.get("HTTP_REQUEST_ID", ""))
        return _refuse(start_response, problem, {"Request-Id": request_id})
    except (LookupError, ValueError, SuspiciousOperation):
        # Django reads the path and the script's name before it catches anything.
        request_id = problems.begin_request(environ.get("HTTP_REQUEST_ID", ""))
        return _refuse(start_response, problems.misunderstood(), {"Request-Id": request_id})


def _check_content_type(content_type: str) -> None:
    """Refuse what Django and DRF stumble over: parameters in parts (RFC 2231), which nothing here has, and forms
    that could bring files, whose own headers may have such parameters too; no page sends one.
    """
    media_type, _, parameters = content_type.partition(";")
    if len(content_type) > MAX_CONTENT_TYPE_LENGTH or "*" in parameters:
        raise problems.misunderstood()
    if media_type.strip().lower().startswith("multipart/"):
        detail = "Send application/json in UTF-8, or a form as application/x-www-form-urlencoded."
        raise problems.Problem(status=415, code="unsupported_media_type", detail=detail)


def _bound_body(environ: dict[str, Any]) -> None:
    """Refuse a body that is too long, on every path, and measure one that came in chunks for Django.

    Django takes a body without a length for an empty one, and keeps uploads of any size on disk.
    """
    length = environ.get("CONTENT_LENGTH", "")
    parsers.check_length(length)
    if not length and "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
        body = parsers.read_body(environ["wsgi.input"], "")
        environ |= {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}


def ingest(environ: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
    """Answer one ingest call, as deliveries.views.IngestView does."""
    request_id = problems.begin_request(environ.get("HTTP_REQUEST_ID", ""))
    headers = {"Request-Id": request_id}
    try:
        accepted = _accept(environ)
    except Exception as error:
        # The last resort of this door, as Django's own is behind the other: whatever it is, the caller
        # gets a problem document with the id of the call, and a mistake of ours is logged there.
        return _refuse(start_response, problems.problem_for(error), headers)
    if accepted is None:
        return _answer(start_response, 204, "", b"", headers)
    if accepted.is_replayed:
        headers[idempotency.REPLAYED_HEADER] = "true"
    body = b'{"request_id":"%s"}' % str(accepted.request_id).encode()
    return _answer(start_response, 202, "application/json", body, headers)


def _accept(environ: dict[str, Any]) -> ingestion.Accepted | None:
    parsers.check_headers(environ.get("CONTENT_TYPE", ""), environ.get("HTTP_CONTENT_ENCODING", ""))
    body = parsers.read_body(environ["wsgi.input"], environ.get("CONTENT_LENGTH", ""))
    given = {ingestion.SIGNATURE_HEADER: environ.get("HTTP_X_WEBHOOK_SIGNATURE", "")}
    if "HTTP_IDEMPOTENCY_KEY" in environ:
        given[idempotency.HEADER] = environ["HTTP_IDEMPOTENCY_KEY"]
    return ingestion.accept(body, given)


def _refuse(start_response: "StartResponse", problem: problems.Problem, headers: dict[str, str]) -> list[bytes]:
    headers = headers | problem.headers
    return _answer(start_response, problem.status, problems.CONTENT_TYPE, problem.body(), headers)


def _answer(
    start_response: "StartResponse", status: int, content_type: str, body: bytes, headers: dict[str, str]
) -> list[bytes]:
    fields = list(headers.items())
    if content_type:
        fields += [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    start_response(f"{status} {HTTPStatus(status).phrase}", fields)
    return [body]
