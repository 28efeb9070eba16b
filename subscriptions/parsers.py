"""The strict JSON parser of the REST API."""

import json
import re
from collections.abc import Mapping
from typing import IO, Any

import msgspec
from django.conf import settings
from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.metadata import BaseMetadata
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.request import Request

from subscriptions.problems import Problem
from subscriptions.schema_costs import depth_of

# More digits than these are no length of anything.
MAX_LENGTH_DIGITS = 18

# Objects and lists within each other. Python gives up at some 900, but not at the same number everywhere: what
# was read just so could not be checked, shown or stored any more.
MAX_DEPTH = 500
TOO_DEEP = "The body is nested too deeply."

# Escapes in JSON: whole surrogate pairs, halves of them, and all others.
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)
# What msgspec says of a half, depending on what comes after it.
_OF_HALF_A_PAIR = ("truncated", "surrogate pair", "end of hex escape")


class StrictJSONParser(BaseParser):
    """Read JSON in UTF-8, and only that.

    DRF's own parser lets the caller choose a codec and answers 500 to deep nesting.
    This one refuses other charsets and content encodings (415), bodies over
    MAX_BODY_BYTES (413), and what msgspec does not take for JSON: NaN, numbers that do
    not fit, lone surrogates, bytes that are not UTF-8, nesting without end, and members of
    the same name (400).
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
    """Answer in JSON whatever the caller's Accept says: there is nothing else to choose from.

    Read JSON too: what a body is said to be otherwise is refused by the parser, in words.
    """

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class NoMetadata(BaseMetadata):
    """Answer OPTIONS with `Allow` and an empty object: what the methods of a path take is in /openapi.json."""

    def determine_metadata(self, request: Request, view: Any) -> dict[str, Any]:
        return {}


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
    check_length(content_length)
    limit = settings.MAX_BODY_BYTES
    body = b"" if stream is None else stream.read(limit + 1)
    if len(body) > limit:
        raise _too_large()
    return body


def raw_body(request: Request) -> bytes:
    """Return the body of a call as it came; raise unless it is said to be JSON in UTF-8, and not too long."""
    headers = request.headers
    check_headers(headers.get("Content-Type", ""), headers.get("Content-Encoding", ""))
    return read_body(request.stream, headers.get("Content-Length", ""))


def check_length(content_length: str) -> None:
    """Raise Problem (413) if a body is announced to be longer than MAX_BODY_BYTES."""
    digits = content_length.lstrip("0")
    if digits.isdecimal() and (len(digits) > MAX_LENGTH_DIGITS or int(digits) > settings.MAX_BODY_BYTES):
        raise _too_large()


def _too_large() -> Problem:
    detail = f"The request body may have at most {settings.MAX_BODY_BYTES} bytes."
    return Problem(status=413, code="too_large", detail=detail)


def parse_json(body: bytes) -> Any:
    """Return what `body` says; raise (400) for what is not JSON, and for a name that an object has twice."""
    try:
        value = msgspec.json.decode(body)
        # Once more, for the names: msgspec takes the last of two, other parsers the first.
        json.loads(body, object_pairs_hook=_refuse_duplicates, parse_int=str, parse_float=str)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ParseError(no_json(body, error)) from None
    except RecursionError:
        raise ParseError(TOO_DEEP) from None
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and depth_of(value) > MAX_DEPTH:
        raise ParseError(TOO_DEEP)
    return value


def no_json(body: bytes, error: Exception) -> str:
    """Return in a sentence why msgspec does not take `body` for JSON.

    Of half a surrogate pair, which other parsers let pass, it may say that the text ends too early.
    """
    halves = (escape["half"] for escape in _ESCAPES.finditer(body) if escape["half"])
    may_be_half = any(words in str(error) for words in _OF_HALF_A_PAIR)
    if may_be_half and (half := next(halves, None)):
        return f"The body is not valid JSON: {half.decode()} is half of a surrogate pair."
    return f"The body is not valid JSON: {error}."


def _refuse_duplicates(members: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in members}) < len(members):
        detail = "An object in the body has two members of the same name."
        raise Problem(status=400, code="duplicate_member", detail=detail)
