"""Send many calls at once and say what came of each: the only module that knows libcurl.

One thread, one multi handle, sockets watched with epoll. A call has a limit for the whole
of it, reads a bounded part of the answer, follows no redirect, keeps no cookie, and takes
nothing from the environment. Each socket is judged by the address it is about to connect
to, which no redirect, changing name or odd notation can get around.
"""

import select
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import certifi
import pycurl

from deliveries.outcome import ErrorClass, Outcome, error_of_status
from subscriptions.addresses import Network, is_allowed_address

# What is kept of an answer, in bytes; reading stops there.
MAX_RESPONSE_BYTES = 65_536
MAX_HEADER_BYTES = 32_768

# Idle connections kept for the next call to the same target.
KEPT_CONNECTIONS = 1_024
SPARE_HANDLES = 1_024

# Headers of an answer that may hold credentials are not stored.
_UNSTORED_HEADERS = (b"set-cookie:", b"authorization:", b"www-authenticate:", b"proxy-")

_ERRORS = {
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
}

# Errors after which a complete status line still decides: the answer's end was cut, by
# the receiver or by our own limit.
_STATUS_DECIDES = {pycurl.E_PARTIAL_FILE, pycurl.E_WRITE_ERROR}


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One POST to make. `tag` is the caller's own, to know the call by when it is finished."""

    tag: Any
    url: str
    headers: list[str]
    body: bytes
    timeout_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    call: Call
    outcome: Outcome


class _Socket(socket.socket):
    """A socket for libcurl, which duplicates its descriptor and drops this object."""

    def __del__(self) -> None:
        self.close()


@dataclass(slots=True)
class _Running:
    """A call in flight and what has been read of its answer."""

    call: Call
    allowed_networks: tuple[Network, ...]
    headers: list[bytes] = field(default_factory=list)
    header_bytes: int = 0
    body: bytearray = field(default_factory=bytearray)
    is_blocked: bool = False
    is_cut: bool = False

    def open_socket(self, purpose: int, address: Any) -> Any:
        """Judge the address that is about to be connected; libcurl tries the next one if it is refused."""
        host = address.addr[0] if isinstance(address.addr, tuple) else None
        if purpose != pycurl.SOCKTYPE_IPCXN or host is None:
            self.is_blocked = True
            return pycurl.SOCKET_BAD
        if not is_allowed_address(ip_address(host), self.allowed_networks):
            self.is_blocked = True
            return pycurl.SOCKET_BAD
        return _Socket(address.family, address.socktype, address.protocol)

    def take_header(self, line: bytes) -> int | None:
        if line.startswith(b"HTTP/"):
            self.headers.clear()  # what came before was an interim answer (100, 103)
        self.header_bytes += len(line)
        if self.header_bytes > MAX_HEADER_BYTES:
            return -1
        self.headers.append(line)
        return None

    def take_body(self, chunk: bytes) -> int | None:
        room = MAX_RESPONSE_BYTES - len(self.body)
        self.body += chunk[:room]
        if len(chunk) > room:
            self.is_cut = True
            return -1
        return None


class Transport:
    """Calls in flight, side by side. Not for use by several threads."""

    def __init__(self, *, user_agent: str, allowed_networks: Iterable[Network] = ()) -> None:
        self._user_agent = user_agent
        self._allowed_networks = tuple(allowed_networks)
        self._epoll = select.epoll()
        self._deadline: float | None = None
        self._running: dict[pycurl.Curl, _Running] = {}
        self._spare: list[pycurl.Curl] = []
        self._multi: Any = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, KEPT_CONNECTIONS)

    @property
    def in_flight(self) -> int:
        return len(self._running)

    def send(self, call: Call) -> None:
        """Start a call; `wait` returns it when it is finished. Raises ValueError for one that cannot be made."""
        handle = self._spare.pop() if self._spare else self._new_handle()
        running = _Running(call, self._allowed_networks)
        try:
            self._prepare(handle, running)
        except (pycurl.error, UnicodeError, TypeError) as error:
            handle.close()
            raise ValueError(f"libcurl refuses this call: {error}") from error
        self._running[handle] = running
        self._multi.add_handle(handle)

    def wait(self, timeout_seconds: float) -> list[Finished]:
        """Move the calls on for at most `timeout_seconds`, less if some finish; return those that did."""
        until = time.monotonic() + timeout_seconds
        while True:
            self._step(until)
            finished = self._collect()
            if finished or time.monotonic() >= until or not self._running:
                return finished

    def close(self) -> None:
        """Give up every call and connection."""
        for handle in list(self._running):
            self._multi.remove_handle(handle)
            handle.close()
        self._running.clear()
        for handle in self._spare:
            handle.close()
        self._spare.clear()
        self._multi.close()
        self._epoll.close()

    def _step(self, until: float) -> None:
        now = time.monotonic()
        wake_at = until if self._deadline is None else min(until, self._deadline)
        for descriptor, events in self._epoll.poll(max(0.0, wake_at - now)):
            self._multi.socket_action(descriptor, _curl_events(events))
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._deadline = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def _watch_socket(self, action: int, descriptor: int, multi: Any, data: Any) -> None:
        if action == pycurl.POLL_REMOVE:
            _ignoring_missing(self._epoll.unregister, descriptor)
            return
        wanted = 0
        if action in (pycurl.POLL_IN, pycurl.POLL_INOUT):
            wanted |= select.EPOLLIN
        if action in (pycurl.POLL_OUT, pycurl.POLL_INOUT):
            wanted |= select.EPOLLOUT
        try:
            self._epoll.modify(descriptor, wanted)
        except FileNotFoundError:
            self._epoll.register(descriptor, wanted)

    def _set_timer(self, timeout_ms: int) -> None:
        self._deadline = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000

    def _new_handle(self) -> pycurl.Curl:
        handle = pycurl.Curl()
        for option, value in {
            pycurl.NOSIGNAL: 1,
            pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
            pycurl.FOLLOWLOCATION: 0,
            pycurl.NOPROXY: "*",
            pycurl.NETRC: pycurl.NETRC_IGNORED,
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.CAINFO: certifi.where(),
            pycurl.SSL_VERIFYPEER: 1,
            pycurl.SSL_VERIFYHOST: 2,
            pycurl.USERAGENT: self._user_agent,
            pycurl.POST: 1,
        }.items():
            handle.setopt(option, value)
        return handle

    def _prepare(self, handle: pycurl.Curl, running: _Running) -> None:
        call = running.call
        handle.setopt(pycurl.URL, call.url)
        # An empty Expect keeps libcurl from waiting for "100 Continue" before a large body.
        handle.setopt(pycurl.HTTPHEADER, [*call.headers, "Expect:", "Accept: */*"])
        handle.setopt(pycurl.POSTFIELDSIZE, len(call.body))
        handle.setopt(pycurl.COPYPOSTFIELDS, call.body)
        handle.setopt(pycurl.TIMEOUT_MS, int(call.timeout_seconds * 1000))
        handle.setopt(pycurl.CONNECTTIMEOUT_MS, int(call.timeout_seconds * 1000))
        handle.setopt(pycurl.OPENSOCKETFUNCTION, running.open_socket)
        handle.setopt(pycurl.HEADERFUNCTION, running.take_header)
        handle.setopt(pycurl.WRITEFUNCTION, running.take_body)

    def _collect(self) -> list[Finished]:
        finished = []
        queued = 1
        while queued:
            queued, succeeded, failed = self._multi.info_read()
            finished += [self._finish(handle, pycurl.E_OK) for handle in succeeded]
            finished += [self._finish(handle, code) for handle, code, _ in failed]
        return finished

    def _finish(self, handle: pycurl.Curl, code: int) -> Finished:
        running = self._running.pop(handle)
        outcome = _outcome(handle, running, code)
        self._multi.remove_handle(handle)
        if len(self._spare) < SPARE_HANDLES:
            self._spare.append(handle)
        else:
            handle.close()
        return Finished(call=running.call, outcome=outcome)


def _outcome(handle: pycurl.Curl, running: _Running, code: int) -> Outcome:
    status_code = handle.getinfo(pycurl.RESPONSE_CODE) or None
    lines = [line for line in running.headers if not line.lower().startswith(_UNSTORED_HEADERS)]
    return Outcome(
        error=_error(running, code, status_code),
        status_code=status_code,
        response_ms=round(handle.getinfo(pycurl.TOTAL_TIME) * 1000),
        dns_ms=_phase_ms(handle, pycurl.NAMELOOKUP_TIME),
        connect_ms=_phase_ms(handle, pycurl.CONNECT_TIME),
        tls_ms=_phase_ms(handle, pycurl.APPCONNECT_TIME),
        first_byte_ms=_phase_ms(handle, pycurl.STARTTRANSFER_TIME),
        response_headers=b"".join(lines).decode("latin-1").replace("\0", "\N{REPLACEMENT CHARACTER}").strip(),
        response_body=bytes(running.body),
    )


def _error(running: _Running, code: int, status_code: int | None) -> ErrorClass | None:
    if code == pycurl.E_OK and status_code is not None:
        return error_of_status(status_code)
    if running.is_blocked and status_code is None:
        return ErrorClass.BLOCKED_ADDRESS
    if status_code is not None and (code in _STATUS_DECIDES and (running.is_cut or code == pycurl.E_PARTIAL_FILE)):
        return error_of_status(status_code)
    return _ERRORS.get(code, ErrorClass.PROTOCOL)


def _phase_ms(handle: pycurl.Curl, info: int) -> int | None:
    seconds = handle.getinfo(info)
    return round(seconds * 1000) if seconds > 0 else None


def _curl_events(events: int) -> int:
    selected = 0
    if events & select.EPOLLIN:
        selected |= pycurl.CSELECT_IN
    if events & select.EPOLLOUT:
        selected |= pycurl.CSELECT_OUT
    if events & (select.EPOLLERR | select.EPOLLHUP):
        selected |= pycurl.CSELECT_ERR
    return selected


def _ignoring_missing(function: Callable[[int], object], descriptor: int) -> None:
    """Unwatch a descriptor that may be closed already."""
    try:
        function(descriptor)
    except (FileNotFoundError, OSError, ValueError):
        return
