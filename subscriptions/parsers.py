"""The strict JSON parser of the REST API."""

from collections.abc import Mapping
from typing import IO, Any

import msgspec
from django.conf import settings
from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.utils.mediatypes import media_type_matches

from subscriptions.problems import Problem


class StrictJSONParser(BaseParser):
    """Read JSON in UTF-8, and only that.

    DRF's own parser lets the caller choose a codec and answers 500 to deep nesting.
    This one refuses other charsets and content encodings (415), bodies over
    MAX_BODY_BYTES (413), and what msgspec does not take for JSON: NaN, numbers that do
    not fit, lone surrogates, bytes that are not UTF-8, nesting without end (400).
    """

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        context = parser_context or {}
        headers = context["request"].headers
        check_headers(media_type or "", headers.get("Content-Encoding", ""))
        return parse_json(read_body(stream, headers.get("Content-Length", "")))


class JSONOnly(BaseContentNegotiation):
    """Answer in JSON whatever the caller's Accept says: there is nothing else to choose from."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        given = request.content_type or ""
        return next((parser for parser in parsers if media_type_matches(parser.media_type, given)), None)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


def check_headers(content_type: str, content_encoding: str) -> None:
    """Raise UnsupportedMediaType unless a body so described is JSON in UTF-8, sent as it is."""
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = {value.partition("=")[2].strip('"') for value in parameters if value.startswith("charset=")}
    if media_type != "application/json" or not charsets <= {"utf-8", "utf8"}:
        raise UnsupportedMediaType(content_type, "Send application/json in UTF-8.")
    if content_encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType(content_type, "Send the body without a Content-Encoding.")


def read_body(stream: IO[bytes] | None, content_length: str) -> bytes:
    """Return the request's body, read no further than MAX_BODY_BYTES; raise Problem (413) if it is longer."""
    limit = settings.MAX_BODY_BYTES
    announced = int(content_length) if content_length.isdecimal() else 0
    body = b"" if stream is None or announced > limit else stream.read(limit + 1)
    if announced > limit or len(body) > limit:
        raise Problem(status=413, code="too_large", detail=f"The request body may have at most {limit} bytes.")
    return body


def raw_body(request: Request) -> bytes:
    """Return the body of a call as it came; raise unless it is said to be JSON in UTF-8, and not too long."""
    headers = request.headers
    check_headers(headers.get("Content-Type", ""), headers.get("Content-Encoding", ""))
    return read_body(request.stream, headers.get("Content-Length", ""))


def parse_json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ParseError(f"The body is not valid JSON: {error}.") from None
    except RecursionError:
        raise ParseError("The body is nested too deeply.") from None
