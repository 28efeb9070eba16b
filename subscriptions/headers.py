"""Which extra headers a subscription may send: pure rules (RFC 9110, sections 5.1 and 5.5).

A header that the service sets itself cannot be set by a subscription, nor one that says
how the connection or the body is framed: it would break the request, or make two servers
on its way read it differently. Refusals name the header and never its value.
"""

import re
from collections.abc import Mapping

MAX_HEADERS = 50
MAX_NAME_LENGTH = 100
# Many servers refuse a request whose headers have more than 8 KB together.
MAX_BYTES = 6_144

SERVICE_NAMES = frozenset(
    {
        "content-type",
        "user-agent",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "x-webhook-signature",
        "x-webhook-event",
        "x-webhook-attempt",
    }
)
FRAMING_NAMES = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
PROXY_PREFIX = "proxy-"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Visible ASCII, with spaces and tabs inside.
_VALUE = re.compile(r"[!-~]([\t -~]*[!-~])?")


class RefusedHeader(ValueError):
    """A header that may not be sent; the text says why, for the one who wrote it. `name` is the header's."""

    def __init__(self, text: str, *, name: str) -> None:
        super().__init__(text)
        self.name = name


def is_reserved(name: str) -> bool:
    """Return whether the service sets this header itself, or leaves it to the connection."""
    lower = name.lower()
    return lower in SERVICE_NAMES or lower in FRAMING_NAMES or lower.startswith(PROXY_PREFIX)


def check_header(name: str, value: object) -> None:
    """Raise RefusedHeader unless a subscription may send this header."""
    if len(name) > MAX_NAME_LENGTH:
        raise RefusedHeader(f"A header name has at most {MAX_NAME_LENGTH} characters.", name=name)
    if not _TOKEN.fullmatch(name):
        raise RefusedHeader("A header name has letters, digits and !#$%&'*+-.^_`|~ only.", name=name)
    if is_reserved(name):
        raise RefusedHeader(f"The header {name} is set by the service.", name=name)
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        text = f"The value of {name} is visible ASCII text, with spaces and tabs inside at most, and not empty."
        raise RefusedHeader(text, name=name)


def check_headers(headers: Mapping[str, object]) -> None:
    """Raise RefusedHeader unless a subscription may send all of these headers together."""
    if len(headers) > MAX_HEADERS:
        raise RefusedHeader(f"There are at most {MAX_HEADERS} headers.", name="")
    seen: set[str] = set()
    for name, value in headers.items():
        check_header(name, value)
        if name.lower() in seen:
            raise RefusedHeader(f"The header {name} is there twice: upper and lower case are the same.", name=name)
        seen.add(name.lower())
    if sum(len(name) + len(str(value)) for name, value in headers.items()) > MAX_BYTES:
        raise RefusedHeader(f"The headers have at most {MAX_BYTES} characters together.", name="")


def merged(*groups: Mapping[str, str]) -> dict[str, str]:
    """Return these headers together, each name once, whatever its case: the last group that has it wins."""
    last = {name.lower(): (name, value) for group in groups for name, value in group.items()}
    return dict(last.values())
