"""Look up host names beside the calls, so that silent name servers hold up nobody else.

libcurl would look names up in a fixed number of threads, and once all of them wait for
name servers that do not answer, no name is found any more. Here each name is looked up
once for all calls that want it; a name that was found before is used at once, and looked
up again behind the scenes. So only names that nobody has called yet can be held up, and
those of one customer hold up no other's: they share the threads as the calls share a
worker's slots.

What is found is not judged here: the socket's address is, when it opens (handle.py).
"""

import os
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from deliveries.slots import Slots

# A name is looked up again when it is older than this, and forgotten when nobody has
# asked for it for this long. A name that was not found is tried again soon.
FRESH_SECONDS = 30.0
FORGOTTEN_SECONDS = 3600.0
UNKNOWN_SECONDS = 5.0

# Of these one customer has at most half.
THREADS = 64
MAX_ADDRESSES = 8

Lookup = Callable[[str], list[str]]


@dataclass(slots=True)
class _Name:
    """What is known of a name: its addresses (none if it was not found), and since when."""

    addresses: list[str] = field(default_factory=list)
    looked_up_at: float | None = None
    asked_at: float = 0.0

    def is_current(self, now: float) -> bool:
        lasts = FRESH_SECONDS if self.addresses else UNKNOWN_SECONDS
        return self.looked_up_at is not None and now - self.looked_up_at < lasts


class _Want(NamedTuple):
    """A name that a customer wants to be looked up."""

    customer: str
    host: str


class Resolver:
    """Names and their addresses, looked up by threads of its own.

    `fileno` becomes readable when a look-up has ended, for whoever waits with epoll.
    """

    def __init__(self, lookup: Lookup | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lookup = lookup or look_up
        self._clock = clock
        self._names: dict[str, _Name] = {}
        self._lock = threading.Lock()
        # What is wanted and not found out yet; of that, by customer, what no thread is free for.
        self._wants: set[_Want] = set()
        self._waiting: dict[str, deque[_Want]] = {}
        self._slots = Slots(THREADS)
        self._taken: queue.SimpleQueue[_Want | None] = queue.SimpleQueue()
        self._threads = 0
        self._idle = threading.Semaphore(0)
        self._swept_at = self._clock()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._event

    def clear_event(self) -> None:
        """Take note that look-ups have ended."""
        try:
            os.eventfd_read(self._event)
        except BlockingIOError:
            return

    def addresses_of(self, host: str, customer: str = "") -> list[str] | None:
        """Return the addresses of `host`, none if there is no such name, None while it is being looked up.

        Addresses that are not fresh any more are returned all the same, and looked up again.
        """
        now = self._clock()
        with self._lock:
            self._sweep(now)
            name = self._names.setdefault(host, _Name())
            name.asked_at = now
            if not name.is_current(now):
                self._want(_Want(customer, host))
            if name.addresses or name.is_current(now):
                return name.addresses
        return None

    def close(self) -> None:
        """Let the threads end, each when its look-up has."""
        with self._lock:  # no look-up that ends from here on may touch the event, or begin another
            for _ in range(self._threads):
                self._taken.put(None)
            os.close(self._event)
            self._event = -1

    def _want(self, want: _Want) -> None:
        """Have a name looked up in this customer's turn, whoever else wants it and waits for his."""
        if want not in self._wants:
            self._wants.add(want)
            self._waiting.setdefault(want.customer, deque()).append(want)
            self._hand_out()

    def _hand_out(self) -> None:
        """Give threads what waits for one, as far as its customer may have one."""
        for customer, wants in list(self._waiting.items()):
            if not self._slots.free:
                return
            while wants and self._slots.allowance(customer):
                self._slots.take(customer)
                self._taken.put(wants.popleft())
                self._start_thread()
            if not wants:
                del self._waiting[customer]

    def _start_thread(self) -> None:
        if not self._idle.acquire(blocking=False) and self._threads < THREADS:
            self._threads += 1
            threading.Thread(target=self._work, name="resolver", daemon=True).start()

    def _work(self) -> None:
        while (want := self._taken.get()) is not None:
            if self._is_current(want.host):  # another customer's turn came first
                self._note(want, None)
                continue
            try:
                addresses = self._lookup(want.host)
            except (OSError, UnicodeError):
                addresses = []
            self._note(want, addresses)

    def _is_current(self, host: str) -> bool:
        with self._lock:
            return self._names[host].is_current(self._clock())

    def _note(self, want: _Want, addresses: list[str] | None) -> None:
        with self._lock:
            if addresses is not None:
                name = self._names[want.host]
                name.looked_up_at = self._clock()
                name.addresses = addresses
            self._wants.remove(want)
            self._slots.give_back(want.customer)
            self._idle.release()
            if self._event != -1:
                self._hand_out()
                os.eventfd_write(self._event, 1)

    def _sweep(self, now: float) -> None:
        """Forget, now and then, what nobody asks for any more."""
        if now - self._swept_at < FORGOTTEN_SECONDS / 10:
            return
        self._swept_at = now
        wanted = {want.host for want in self._wants}
        for host, name in list(self._names.items()):
            if now - name.asked_at > FORGOTTEN_SECONDS and host not in wanted:
                del self._names[host]


def look_up(host: str) -> list[str]:
    """Ask the C library for the addresses of a name, in the order of RFC 6724. Raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))[:MAX_ADDRESSES]


@lru_cache(maxsize=10_000)
def split_host(url: str) -> tuple[str, int] | None:
    """Return the host name and port of a URL, None if the host is an address and needs no look-up."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        ip_address(host)
    except ValueError:
        return host, parts.port or (443 if parts.scheme == "https" else 80)
    return None
