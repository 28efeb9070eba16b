"""Send many calls at once: the loop around libcurl.

One thread, one multi handle, sockets watched with epoll. A call has a limit for the whole
of it, reads a bounded part of the answer, follows no redirect, keeps no cookie, and takes
nothing from the environment. Each socket is judged by the address it is about to connect
to, which no redirect, changing name or odd notation can get around. See handle.py for the
rules of one call; the two are the only modules that know libcurl.
"""

import contextlib
import logging
import math
import os
import resource
import select
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import certifi
import msgspec
import pycurl

from deliveries.connections import Connections
from deliveries.handle import MAX_HANDSHAKE_STEP_SECONDS, Call, Handle
from deliveries.outcome import ErrorClass, Outcome
from deliveries.resolver import Resolver, split_host
from deliveries.watch import Watch
from subscriptions.addresses import Network

__all__ = ["Call", "Finished", "Transport"]

logger = logging.getLogger(__name__)

# Open connections, those in use included, above which an idle one is closed for each
# that is given back.
KEPT_CONNECTIONS = 1_024

# Handles kept for the next calls, as many as a worker has calls in flight unless told: a new
# one costs 16 µs, a kept one some 10 KB.
SPARE_HANDLES = 1_024

# Sockets handled in one step: bounds what is finished, and in memory, at once.
EVENTS_PER_STEP = 256

# How often the limits of calls are looked at, at most. One that is over ends the call at the second
# look: in between there are steps enough to read what had come in for all calls.
LOOK_SECONDS = 0.05

# How often it is asked of calls in flight whether their receivers flood them: that has its price for each.
FLOOD_SECONDS = 0.5

# More descriptors than a worker needs; some systems allow a billion.
MAX_DESCRIPTORS = 65_536

# How the C library asks for names: two questions of 2 s each, in place of 5 s.
LOOKUP_OPTIONS = "timeout:2 attempts:2"

_WANTED = {
    pycurl.POLL_NONE: 0,
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    call: Call
    outcome: Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class _Waiting:
    """A call whose host name is being looked up."""

    call: Call
    host: str
    since: float

    @property
    def ends_at(self) -> float:
        return self.since + self.call.timeout_seconds


class Transport:
    """Calls in flight, side by side. Not for use by several threads.

    `ca_bundle` is a file with the certificates of the authorities to trust, in place of
    the public ones.
    """

    def __init__(
        self,
        *,
        user_agent: str,
        allowed_networks: Iterable[Network] = (),
        ca_bundle: str | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self._user_agent = user_agent
        self._allowed_networks = tuple(allowed_networks)
        self._ca_bundle = certifi.where() if ca_bundle is None else ca_bundle
        self._connections = Connections()
        self._resolver = resolver or Resolver()
        self._waiting: list[_Waiting] = []
        self._waiting_until = math.inf
        self._has_news = False
        self._refused: list[Finished] = []
        self._epoll = select.epoll()
        self._epoll.register(self._resolver.fileno(), select.EPOLLIN)
        self._watched: set[int] = set()
        self._deadline: float | None = None
        self._looked_at = 0.0
        self._floods_at = 0.0
        # How many of the sockets there were at the last look may still have something to read.
        self._unread = 0
        self._running: dict[pycurl.Curl, Handle] = {}
        self._spare: list[Handle] = []
        self._multi: Any = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, KEPT_CONNECTIONS)
        _allow_descriptors()
        os.environ.setdefault("RES_OPTIONS", LOOKUP_OPTIONS)
        # Last, as a thread: of a transport that could not be made it would stay for ever.
        self._watch = Watch(self._connections)

    @property
    def in_flight(self) -> int:
        return len(self._running) + len(self._waiting) + len(self._refused)

    def send(self, call: Call) -> None:
        """Start a call; `wait` returns it when it is finished. Raises ValueError for one that cannot be made."""
        call.check()
        place = split_host(call.url)
        if place is None:
            self._start(call, None, 0.0)
        else:
            self._start_or_wait(_Waiting(call=call, host=place[0], since=time.monotonic()))

    def _start_waiting(self) -> None:
        """Start the calls whose names have been looked up, and end those whose time is over."""
        self._has_news = False
        waiting, self._waiting, self._waiting_until = self._waiting, [], math.inf
        for each in waiting:
            try:
                self._start_or_wait(each)
            except ValueError:
                logger.exception("a call cannot be made")
                outcome = Outcome(error=ErrorClass.INTERNAL, response_ms=0)
                self._refused.append(Finished(call=each.call, outcome=outcome))

    def _start_or_wait(self, each: _Waiting) -> None:
        waited = time.monotonic() - each.since
        addresses = self._resolver.addresses_of(each.host, each.call.customer)
        if addresses:
            self._start(each.call, addresses, waited)
        elif addresses is None and waited < each.call.timeout_seconds:
            self._waiting.append(each)
            self._waiting_until = min(self._waiting_until, each.ends_at)
        else:
            waited_ms = round(waited * 1000)
            outcome = Outcome(error=ErrorClass.DNS, response_ms=waited_ms, dns_ms=waited_ms)
            self._refused.append(Finished(call=each.call, outcome=outcome))

    def _start(self, call: Call, addresses: list[str] | None, waited_seconds: float) -> None:
        handle = self._spare.pop() if self._spare else self._new_handle()
        try:
            handle.begin(call, addresses=addresses, waited_seconds=waited_seconds)
        except ValueError:
            handle.curl.close()
            raise
        self._multi.add_handle(handle.curl)
        self._running[handle.curl] = handle

    def wait(self, timeout_seconds: float) -> list[Finished]:
        """Move the calls on for at most `timeout_seconds`, less if some finish; return those that did."""
        until = time.monotonic() + timeout_seconds
        while True:
            self._step(until)
            self._unread -= EVENTS_PER_STEP
            if self._has_news or time.monotonic() >= self._waiting_until:
                self._start_waiting()
            finished = self._refused + self._collect() + self._out_of_time() + self._flooded()
            self._refused = []
            if finished or time.monotonic() >= until or not self.in_flight:
                return finished

    def close(self) -> None:
        """Give up every call and connection."""
        for curl in self._running:
            self._multi.remove_handle(curl)
        for handle in [*self._running.values(), *self._spare]:
            handle.curl.close()
        self._running.clear()
        self._spare.clear()
        with self._watch:
            self._multi.close()
        self._epoll.close()
        self._resolver.close()
        self._watch.close()

    def _step(self, until: float) -> None:
        now = time.monotonic()
        wake_at = min(until, self._waiting_until, math.inf if self._deadline is None else self._deadline)
        if self._running:
            wake_at = min(wake_at, self._looked_at + LOOK_SECONDS)
        for descriptor, _ in self._epoll.poll(max(0.0, wake_at - now), EVENTS_PER_STEP):
            if descriptor == self._resolver.fileno():
                self._resolver.clear_event()
                self._has_news = True
                continue
            # First what is due: libcurl would see to it in the step of this socket, which is judged by its work.
            self._see_to_times()
            # Zero lets libcurl find out by itself what the socket is ready for. An event may
            # be of a socket that was closed in this very loop; libcurl passes over it.
            with self._watch:
                self._multi.socket_action(descriptor, 0)
            if self._watch.computed_seconds > MAX_HANDSHAKE_STEP_SECONDS:
                slowed = [handle for handle in self._running.values() if handle.is_slowed(descriptor)]
                self._refused += [self._cut_off(handle, pycurl.E_SSL_CONNECT_ERROR) for handle in slowed]
        self._see_to_times()

    def _see_to_times(self) -> None:
        """Have libcurl do what is due by the clock, such as to begin calls: any number of them."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._deadline = None
            with self._watch.of_many():
                self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    # The two callbacks of the multi handle raise nothing: libcurl would give it up, with all calls.

    def _watch_socket(self, action: int, descriptor: int, multi: Any, data: Any) -> None:
        if action == pycurl.POLL_REMOVE:
            self._watched.discard(descriptor)
            # libcurl may have closed it already, which unwatches it too.
            with contextlib.suppress(OSError):
                self._epoll.unregister(descriptor)
            return
        if descriptor in self._watched:
            with contextlib.suppress(FileNotFoundError):
                self._epoll.modify(descriptor, _WANTED[action])
                return
        self._epoll.register(descriptor, _WANTED[action])
        self._watched.add(descriptor)

    def _set_timer(self, timeout_ms: int) -> None:
        self._deadline = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000

    def _new_handle(self) -> Handle:
        return Handle(
            self._connections,
            self._watch,
            user_agent=self._user_agent,
            allowed_networks=self._allowed_networks,
            ca_bundle=self._ca_bundle,
        )

    def _collect(self) -> list[Finished]:
        finished = []
        queued = 1
        while queued:
            queued, succeeded, failed = self._multi.info_read()
            ended = [(curl, pycurl.E_OK, "") for curl in succeeded] + failed
            for curl, code, message in ended:
                self._multi.remove_handle(curl)
                handle = self._running[curl]
                if handle.is_stale:
                    handle.begin_afresh()
                    self._multi.add_handle(curl)
                else:
                    finished.append(Finished(call=handle.call, outcome=handle.outcome(code, message)))
                    self._release(handle)
        return finished

    def _out_of_time(self) -> list[Finished]:
        """End the calls whose limit is over, and return them."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS or self._unread >= 0:
            return []
        self._looked_at, self._unread = now, len(self._running)
        finished = []
        for handle in [handle for handle in self._running.values() if handle.ends_at <= now]:
            if not handle.is_overdue:
                handle.is_overdue = True
                continue
            finished.append(self._cut_off(handle, pycurl.E_OPERATION_TIMEDOUT))
        return finished

    def _flooded(self) -> list[Finished]:
        """End the calls in whose connections there is far more than an answer, and return them."""
        now = time.monotonic()
        if now < self._floods_at:
            return []
        self._floods_at = now + FLOOD_SECONDS
        flooded = [handle for handle in self._running.values() if handle.is_flooded()]
        return [self._cut_off(handle, pycurl.E_WRITE_ERROR) for handle in flooded]

    def _cut_off(self, handle: Handle, code: int) -> Finished:
        self._multi.remove_handle(handle.curl)
        finished = Finished(call=handle.call, outcome=handle.outcome(code))
        self._release(handle)
        return finished

    def _release(self, handle: Handle) -> None:
        del self._running[handle.curl]
        handle.end()
        if len(self._spare) < SPARE_HANDLES:
            self._spare.append(handle)
        else:
            handle.curl.close()


def _allow_descriptors() -> None:
    """Let this process open as many descriptors as it may, within reason: a call needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
