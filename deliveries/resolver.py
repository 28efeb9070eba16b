"""Look up host names beside the calls, so that silent name servers hold up nobody else.

libcurl would look names up in a fixed number of threads, and once all of them wait for
name servers that do not answer, no name is found any more. Here each name is looked up
once for all calls that want it; a name that was found before is used at once, and looked
up again behind the scenes. So only names that nobody has called yet can be held up.

What is found is not judged here: the socket's address is, when it opens (handle.py).
"""

import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

# A name is looked up again when it is older than this, and forgotten when nobody has
# asked for it for this long. A name that was not found is tried again soon.
FRESH_SECONDS = 30.0
FORGOTTEN_SECONDS = 3600.0
UNKNOWN_SECONDS = 5.0

THREADS = 32
MAX_ADDRESSES = 8

Lookup = Callable[[str], list[str]]


@dataclass(slots=True)
class _Name:
    """What is known of a name: its addresses (none if it was not found), and since when."""

    addresses: list[str] = field(default_factory=list)
    looked_up_at: float | None = None
    asked_at: float = 0.0
    is_being_looked_up: bool = False

    def is_current(self, now: float) -> bool:
        lasts = FRESH_SECONDS if self.addresses else UNKNOWN_SECONDS
        return self.looked_up_at is not None and now - self.looked_up_at < lasts


class Resolver:
    """Names and their addresses, looked up by threads of its own.

    `fileno` becomes readable when a look-up has ended, for whoever waits with epoll.
    """

    def __init__(self, lookup: Lookup | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lookup = lookup or look_up
        self._clock = clock
        self._names: dict[str, _Name] = {}
        self._lock = threading.Lock()
        self._wanted: queue.SimpleQueue[str | None] = queue.SimpleQueue()
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

    def addresses_of(self, host: str) -> list[str] | None:
        """Return the addresses of `host`, none if there is no such name, None while it is being looked up.

        Addresses that are not fresh any more are returned all the same, and looked up again.
        """
        now = self._clock()
        with self._lock:
            self._sweep(now)
            name = self._names.setdefault(host, _Name())
            name.asked_at = now
            if not name.is_current(now) and not name.is_being_looked_up:
                name.is_being_looked_up = True
                self._want(host)
            if name.addresses or name.is_current(now):
                return name.addresses
        return None

    def close(self) -> None:
        """Let the threads end, each when its look-up has."""
        for _ in range(self._threads):
            self._wanted.put(None)
        with self._lock:  # no look-up that ends from here on may touch the event
            os.close(self._event)
            self._event = -1

    def _want(self, host: str) -> None:
        self._wanted.put(host)
        if not self._idle.acquire(blocking=False) and self._threads < THREADS:
            self._threads += 1
            threading.Thread(target=self._work, name="resolver", daemon=True).start()

    def _work(self) -> None:
        while (host := self._wanted.get()) is not None:
            try:
                addresses = self._lookup(host)
            except (OSError, UnicodeError):
                addresses = []
            self._note(host, addresses)

    def _note(self, host: str, addresses: list[str]) -> None:
        with self._lock:
            name = self._names.setdefault(host, _Name())
            name.is_being_looked_up = False
            name.looked_up_at = self._clock()
            name.addresses = addresses
            self._idle.release()
            if self._event != -1:
                os.eventfd_write(self._event, 1)

    def _sweep(self, now: float) -> None:
        """Forget, now and then, what nobody asks for any more."""
        if now - self._swept_at < FORGOTTEN_SECONDS / 10:
            return
        self._swept_at = now
        for host, name in list(self._names.items()):
            if now - name.asked_at > FORGOTTEN_SECONDS and not name.is_being_looked_up:
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
