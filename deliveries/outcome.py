"""What one call came to: the vocabulary between sending and deciding. Pure."""

from enum import StrEnum

import msgspec


class ErrorClass(StrEnum):
    """Why a call did not deliver; stored with the attempt and shown to its owner."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    RESET = "reset"
    PROTOCOL = "protocol"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    REDIRECT = "redirect"
    BLOCKED_ADDRESS = "blocked_address"
    WORKER_LOST = "worker_lost"
    INTERNAL = "internal"


HINTS = {
    ErrorClass.DNS: "The host name could not be resolved. Check its spelling and its DNS records.",
    ErrorClass.CONNECT: "Nothing answered at this host and port. Check that the server runs and is reachable.",
    ErrorClass.TLS: "The TLS handshake failed. Check that the certificate is valid, complete and for this host.",
    ErrorClass.TIMEOUT: "The receiver did not finish its answer in time. Answer first, work afterwards.",
    ErrorClass.RESET: "The connection was closed before the answer was complete.",
    ErrorClass.PROTOCOL: "The answer was not valid HTTP.",
    ErrorClass.HTTP_4XX: "The receiver refused the call. Its answer may say why.",
    ErrorClass.HTTP_5XX: "The receiver failed. Its answer may say why.",
    ErrorClass.REDIRECT: "Redirects are not followed. Update the target URL to the final one.",
    ErrorClass.BLOCKED_ADDRESS: "The host leads to an address that may not be called.",
    ErrorClass.WORKER_LOST: "The worker ended before it could tell what came of this call. It was made again.",
    ErrorClass.INTERNAL: "The service could not make this call. Its log says why.",
}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One finished call. Times are in milliseconds; a phase that did not happen is None.

    `error` is None exactly when the receiver answered 2xx. `hint` says more than HINTS does,
    where more is known. A status may come with an error all the same: an answer that was begun
    and not finished in time is a timeout.
    """

    error: ErrorClass | None
    hint: str | None = None
    status_code: int | None = None
    response_ms: int
    dns_ms: int | None = None
    connect_ms: int | None = None
    tls_ms: int | None = None
    first_byte_ms: int | None = None
    response_headers: str = ""
    response_body: bytes = b""

    @property
    def is_success(self) -> bool:
        return self.error is None

    @property
    def is_answered(self) -> bool:
        """Whether the status decided the outcome, so that what the answer says can be believed."""
        return self.error in (None, ErrorClass.HTTP_4XX, ErrorClass.HTTP_5XX, ErrorClass.REDIRECT)

    def header(self, name: str) -> str | None:
        """Return the value of the answer's first header called `name`, in any case, or None."""
        wanted = name.lower()
        for line in self.response_headers.splitlines():
            found, colon, value = line.partition(":")
            if colon and found.strip().lower() == wanted:
                return value.strip()
        return None


def error_of_status(status_code: int) -> ErrorClass | None:
    """Return what a complete answer's status means: None for 2xx, which delivers."""
    if 200 <= status_code < 300:
        return None
    if 300 <= status_code < 400:
        return ErrorClass.REDIRECT
    if 400 <= status_code < 500:
        return ErrorClass.HTTP_4XX
    if 500 <= status_code < 600:
        return ErrorClass.HTTP_5XX
    return ErrorClass.PROTOCOL
