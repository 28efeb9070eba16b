"""One libcurl handle: it makes one call after the other, and says what came of each.

A call sends its request at most once. When a kept connection dies before a byte of the
answer came, libcurl sends the request again on another one, although the receiver may
have read it and worked on it: two arrivals in one attempt. So a kept connection is looked
at right before it is used; if it is dead, nothing has been sent, and the call starts again
on a new one. From then on the request may have left, and a second sending is refused: the
call ends as `reset`. That costs an attempt also when the receiver closed an idle connection
at the very moment the request was on its way, for which there is no proof; the bounded
idle time keeps that rare.

How a call ended, in this order: out of time is `timeout`, whatever was read before. Once
the head of an answer (not 1xx) is complete, its status decides, also when the rest was cut
by us, by the receiver or by broken framing: a receiver that said 2xx has taken the request.
Otherwise the error decides, and a head over the limit is `protocol`.
"""

import logging
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pycurl

from deliveries.answer import Answer
from deliveries.connections import Connections, Ends
from deliveries.outcome import ErrorClass, Outcome, error_of_status
from deliveries.resolver import split_host
from deliveries.tls import CLOSED_AFTER_HANDSHAKE_HINT, SLOW_HINT, Certificates, hint_of, is_alert
from deliveries.watch import Watch
from subscriptions.addresses import Network, is_allowed_address, is_allowed_port
from subscriptions.auth import ClientCredentials

logger = logging.getLogger(__name__)

# Many servers close a connection that was idle for 5 s (Node, Apache, Uvicorn); one that
# is not used after 4 s does not meet that closing half-way.
MAX_IDLE_SECONDS = 4

# libcurl keeps the addresses that it is told, and looks at all that it keeps at the end of each call: with those
# of 20,000 hosts that takes 0.6 ms. It needs them at the beginning of one call alone.
NAMES_KEPT_SECONDS = 1

# Without a key exchange whose prime the receiver chooses: one of 10,000 bits keeps the loop, and with it all other
# calls, for over half a second at each handshake. Those over elliptic curves take microseconds.
CIPHERS = "DEFAULT:!kDHE"

# libcurl takes this much memory for each call in flight, and 64 KB unless told.
UPLOAD_BUFFER_BYTES = 16_384

# libcurl ends a call at its limit before it reads what has come in meanwhile: a loop that was
# held up for a moment, by the database say, would take a receiver that answered in time for one
# that did not. So the limit is seen to in transport.py, and libcurl's own, later, is a last resort.
LAST_RESORT_SECONDS = 10

# What comes in and is no part of the answer: TLS, the sizes of chunks. An honest receiver does not send as much.
MAX_STRAY_BYTES = 262_144

# How long the processor may work in the step that checks a receiver's certificates. A subscription's authorities
# can vouch for keys that take long: 24 of DSA with 10,000 bits hold the loop for 0.2 s at each handshake. A usual
# chain takes 3 ms; where only the public authorities are trusted, no chain is checked that they do not vouch for.
MAX_HANDSHAKE_STEP_SECONDS = 0.05

# A handle that waits for its next call does not hold on to a longer payload.
MAX_HELD_BYTES = 4_096

# Lower ones are interim answers, after which the real one is still to come.
LOWEST_FINAL_STATUS = 200

_LOOK_UP = 0
_REFUSED_LOOKUP = 1
_REFUSED_SOCKET: int = pycurl.SOCKET_BAD
_SEND_REQUEST: int = pycurl.PREREQFUNC_OK
_HOLD_REQUEST: int = pycurl.PREREQFUNC_ABORT

_ERRORS = {
    pycurl.E_OK: ErrorClass.RESET,  # the connection ended within the head
    pycurl.E_COULDNT_RESOLVE_HOST: ErrorClass.DNS,
    pycurl.E_COULDNT_CONNECT: ErrorClass.CONNECT,
    pycurl.E_OPERATION_TIMEDOUT: ErrorClass.TIMEOUT,
    pycurl.E_SSL_CONNECT_ERROR: ErrorClass.TLS,
    pycurl.E_PEER_FAILED_VERIFICATION: ErrorClass.TLS,
    pycurl.E_SSL_CERTPROBLEM: ErrorClass.TLS,
    pycurl.E_SSL_CIPHER: ErrorClass.TLS,
    pycurl.E_SSL_ISSUER_ERROR: ErrorClass.TLS,
    pycurl.E_SSL_INVALIDCERTSTATUS: ErrorClass.TLS,
    pycurl.E_SEND_ERROR: ErrorClass.RESET,
    pycurl.E_RECV_ERROR: ErrorClass.RESET,
    pycurl.E_GOT_NOTHING: ErrorClass.RESET,
    pycurl.E_PARTIAL_FILE: ErrorClass.RESET,
    # No receiver's doing.
    pycurl.E_URL_MALFORMAT: ErrorClass.INTERNAL,
    pycurl.E_FAILED_INIT: ErrorClass.INTERNAL,
    pycurl.E_OUT_OF_MEMORY: ErrorClass.INTERNAL,
    pycurl.E_SSL_CACERT_BADFILE: ErrorClass.INTERNAL,
}

# With certificates of the call's own these are about them: unreadable authorities, and a
# key that is not the certificate's.
_CERTIFICATE_ERRORS = (pycurl.E_SSL_CACERT_BADFILE, pycurl.E_BAD_FUNCTION_ARGUMENT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One POST to make. `tag` is the caller's own, to know the call by when it is finished.

    A call with `credentials` needs an access token, which courier.py sees to. `customer` is
    whose it is: one's host names hold up no other's (resolver.py).
    """

    tag: Any
    url: str
    headers: list[str] = field(repr=False)
    body: bytes = field(repr=False)
    timeout_seconds: float
    certificates: Certificates | None = None
    credentials: ClientCredentials | None = None
    customer: str = ""

    def check(self) -> None:
        """Refuse what could smuggle a line into the request; libcurl would send it as it is."""
        text = "".join(self.headers)
        if not (text.isascii() and self.url.isascii() and self.url.isprintable() and " " not in self.url):
            raise ValueError("The URL and the headers of a call are visible ASCII.")
        if "\r" in text or "\n" in text or "\0" in text:
            raise ValueError("A header of a call is one line.")


class Handle:
    """A libcurl handle, its callbacks, and how far the call on it is.

    `is_stale` means that the call ended because the connection chosen for it was dead,
    and is to be begun afresh; `ends_at` is the end of its limit by the monotonic clock, and
    `is_overdue` whether it was seen to be over. What a callback raises, pycurl prints, and takes as a
    refusal; so they raise nothing that can be foreseen.
    """

    def __init__(
        self,
        connections: Connections,
        watch: Watch,
        *,
        user_agent: str,
        allowed_networks: Iterable[Network],
        ca_bundle: str,
    ) -> None:
        self.curl = pycurl.Curl()
        self.call: Call
        self.is_stale = False
        self.is_overdue = False
        self.ends_at = 0.0
        self._is_sent = False
        self._is_blocked = False
        self._is_slow = False
        self._ending: ErrorClass | None = None
        self._opened: list[int] = []
        self._ends: Ends | None = None
        self._strayed: int | None = None
        self._waited_ms = 0
        self._told: list[str] = []
        self._answer = Answer()
        self._connections = connections
        self._watch = watch
        self._allowed_networks = tuple(allowed_networks)
        self._set_options(user_agent, ca_bundle)

    def _set_options(self, user_agent: str, ca_bundle: str) -> None:
        for option, value in {
            pycurl.NOSIGNAL: 1,
            pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
            pycurl.FOLLOWLOCATION: 0,
            pycurl.NOPROXY: "*",
            pycurl.NETRC: pycurl.NETRC_IGNORED,
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.CAINFO: ca_bundle,
            pycurl.SSL_VERIFYPEER: 1,
            pycurl.SSL_VERIFYHOST: 2,
            pycurl.SSLVERSION: pycurl.SSLVERSION_TLSv1_2,  # or newer
            pycurl.SSL_CIPHER_LIST: CIPHERS,  # of TLS 1.2; 1.3 knows no such exchange
            pycurl.USERAGENT: user_agent,
            pycurl.POST: 1,
            pycurl.UPLOAD_BUFFERSIZE: UPLOAD_BUFFER_BYTES,
            pycurl.MAXAGE_CONN: MAX_IDLE_SECONDS,
            pycurl.DNS_CACHE_TIMEOUT: NAMES_KEPT_SECONDS,
            pycurl.RESOLVER_START_FUNCTION: self._before_lookup,
            pycurl.OPENSOCKETFUNCTION: self._open_socket,
            pycurl.PREREQFUNCTION: self._before_request,
            pycurl.HEADERFUNCTION: self._answer.take_header,
            pycurl.WRITEFUNCTION: self._answer.take_body,
        }.items():
            self.curl.setopt(option, value)
        # Some builds of libcurl know a folder of authorities, which would be trusted besides.
        self.curl.unsetopt(pycurl.CAPATH)

    def begin(self, call: Call, *, addresses: list[str] | None = None, waited_seconds: float = 0.0) -> None:
        """Prepare for a checked `call`: all that differs from call to call is set here. Raises ValueError.

        `addresses` are what the URL's host name was found to have, `waited_seconds` how
        much of the call's time went into finding out.
        """
        setopt = self.curl.setopt
        left_seconds = call.timeout_seconds - waited_seconds
        try:
            setopt(pycurl.URL, call.url)
            # An empty Expect keeps libcurl from waiting for "100 Continue" before a large body.
            setopt(pycurl.HTTPHEADER, [*call.headers, "Expect:"])
            setopt(pycurl.POSTFIELDS, call.body)
            setopt(pycurl.TIMEOUT_MS, int((max(0, left_seconds) + LAST_RESORT_SECONDS) * 1000))
            told = _resolve_option(call.url, addresses)
            if told or self._told:
                setopt(pycurl.RESOLVE, told)
                self._told = told
            if call.certificates is not None:
                self._set_certificates(call.certificates)
            setopt(pycurl.FRESH_CONNECT, 0)
        except (pycurl.error, TypeError) as error:
            raise ValueError(f"libcurl refuses this call: {error}") from error
        self.call = call
        self.is_overdue = False
        self.ends_at = time.monotonic() + left_seconds
        self._waited_ms = round(waited_seconds * 1000)

    def _set_certificates(self, certificates: Certificates) -> None:
        for option, pem in {
            pycurl.CAINFO_BLOB: certificates.authorities,
            pycurl.SSLCERT_BLOB: certificates.certificate,
            pycurl.SSLKEY_BLOB: certificates.private_key,
        }.items():
            if pem is not None:
                self.curl.setopt(option, pem)

    def begin_afresh(self) -> None:
        """Prepare for the same call again, on a new connection."""
        self.is_stale = False
        self.curl.setopt(pycurl.RESOLVE, self._told)
        self.curl.setopt(pycurl.FRESH_CONNECT, 1)

    def end(self) -> None:
        """Forget the call and its answer."""
        if len(self.call.body) > MAX_HELD_BYTES:
            self.curl.setopt(pycurl.POSTFIELDS, b"")
        if self.call.certificates is not None:
            for option in (pycurl.CAINFO_BLOB, pycurl.SSLCERT_BLOB, pycurl.SSLKEY_BLOB):
                self.curl.unsetopt(option)
        del self.call
        self._answer.clear()
        self.is_stale = self._is_sent = self._is_blocked = self._is_slow = False
        self._ending = self._ends = self._strayed = None
        self._opened.clear()

    def is_flooded(self) -> bool:
        """Return whether far more was read since this was first asked of the call than is part of its answer.

        A receiver may send without end what no limit of the answer counts: new handshakes (TLS 1.2), new
        keys, extensions of chunks. Each piece costs the loop, up to a call's limit a minute of it.
        """
        read = None if self._ends is None else self._connections.read_bytes_of(self._ends)
        if read is None:
            return False
        stray = read - self._answer.size
        if self._strayed is None:
            self._strayed = stray
        return stray - self._strayed > MAX_STRAY_BYTES

    def is_slowed(self, descriptor: int) -> bool:
        """Return, after a step for a socket, whether the call's handshake on it takes too long to compute."""
        return descriptor in self._opened and not self._is_sent and self._takes_long()

    def _takes_long(self) -> bool:
        certificates = self.call.certificates
        if certificates is None or certificates.authorities is None:
            return False
        if self._watch.computed_seconds > MAX_HANDSHAKE_STEP_SECONDS:
            self._is_slow, self._ending = True, ErrorClass.TLS
        return self._is_slow

    def outcome(self, code: int, message: str = "") -> Outcome:
        """Return what the call came to; `code` and `message` are libcurl's words for it."""
        getinfo = self.curl.getinfo
        status_code = getinfo(pycurl.RESPONSE_CODE)
        is_new = bool(self._opened)
        error = self._error(code, status_code, message)
        return Outcome(
            error=error,
            hint=self._hint(error, message),
            status_code=status_code if status_code >= LOWEST_FINAL_STATUS else None,
            response_ms=self._response_ms(code),
            dns_ms=self._waited_ms if is_new else None,
            connect_ms=_ms(getinfo(pycurl.CONNECT_TIME)) if is_new else None,
            tls_ms=_ms(getinfo(pycurl.APPCONNECT_TIME)) if is_new else None,
            first_byte_ms=_ms(getinfo(pycurl.STARTTRANSFER_TIME)) if self._answer.headers else None,
            response_headers=self._answer.stored_headers(),
            response_body=bytes(self._answer.body),
        )

    def _response_ms(self, code: int) -> int:
        if code == pycurl.E_OPERATION_TIMEDOUT:  # libcurl has counted up to the last byte that came
            return round((self.call.timeout_seconds + time.monotonic() - self.ends_at) * 1000)
        total_seconds: float = self.curl.getinfo(pycurl.TOTAL_TIME)
        return self._waited_ms + round(total_seconds * 1000)

    def _hint(self, error: ErrorClass | None, message: str) -> str | None:
        if self._is_slow:
            return SLOW_HINT
        if error == ErrorClass.TLS:
            return hint_of(message)
        is_new_tls = bool(self._opened) and self.curl.getinfo(pycurl.APPCONNECT_TIME) > 0
        has_certificate = self.call.certificates is not None and self.call.certificates.certificate is not None
        if error == ErrorClass.RESET and is_new_tls and not self._answer.headers and not has_certificate:
            return CLOSED_AFTER_HANDSHAKE_HINT
        return None

    def _error(self, code: int, status_code: int, message: str) -> ErrorClass | None:
        """Apply the rules at the top of this module."""
        if code == pycurl.E_OPERATION_TIMEDOUT:
            return ErrorClass.TIMEOUT
        if self._answer.is_head_complete and status_code >= LOWEST_FINAL_STATUS:
            return error_of_status(status_code)
        if self._ending is not None:
            return self._ending
        if self._is_blocked and code == pycurl.E_COULDNT_CONNECT:
            return ErrorClass.BLOCKED_ADDRESS
        if is_alert(message) or (self.call.certificates is not None and code in _CERTIFICATE_ERRORS):
            return ErrorClass.TLS
        return _ERRORS.get(code, ErrorClass.PROTOCOL)

    def _before_lookup(self) -> int:
        """Look nothing up for a second sending: libcurl may have forgotten by then what it was told."""
        if self._is_sent:
            self._ending = ErrorClass.RESET
            return _REFUSED_LOOKUP
        return _LOOK_UP

    def _open_socket(self, purpose: int, address: Any) -> int:
        """Judge the address that is about to be connected; libcurl tries the next one if it is refused."""
        if self._is_sent:
            self._ending = ErrorClass.RESET
            return _REFUSED_SOCKET
        if not self._is_allowed(purpose, address):
            self._is_blocked = True
            return _REFUSED_SOCKET
        try:
            # The descriptor is libcurl's from here.
            descriptor = socket.socket(address.family, address.socktype, address.protocol).detach()
        except OSError:
            logger.exception("a socket cannot be opened")
            self._ending = ErrorClass.INTERNAL
            return _REFUSED_SOCKET
        self._opened.append(descriptor)
        self._connections.add(descriptor)
        return descriptor

    def _is_allowed(self, purpose: int, address: Any) -> bool:
        if purpose != pycurl.SOCKTYPE_IPCXN or not isinstance(address.addr, tuple):
            return False
        host, port = address.addr[:2]
        return is_allowed_port(port) and is_allowed_address(ip_address(host), self._allowed_networks)

    def _before_request(self, *ends: Any) -> int:
        """Let the request out on this connection, if it is the first time and the connection lives."""
        if self._is_sent:
            self._ending = ErrorClass.RESET
            return _HOLD_REQUEST
        if self._opened:
            if self._takes_long():
                return _HOLD_REQUEST
            self._connections.note(Ends(*ends), self._opened)
        elif not self._connections.can_be_reused(Ends(*ends)):
            self.is_stale = True
            return _HOLD_REQUEST
        self._is_sent, self._ends = True, Ends(*ends)
        return _SEND_REQUEST


def _resolve_option(url: str, addresses: list[str] | None) -> list[str]:
    """Return what tells libcurl the addresses of the URL's host, so that it does not look for them."""
    place = split_host(url)
    if place is None or not addresses:
        return []
    listed = ",".join(f"[{address}]" if ":" in address else address for address in addresses)
    return [f"+{place[0]}:{place[1]}:{listed}"]  # with the plus they are not kept for ever


def _ms(seconds: float) -> int | None:
    return round(seconds * 1000) if seconds > 0 else None
