"""A TCP proxy that makes trouble: between the service and PostgreSQL, Redis or a receiver.

It listens on loopback and forwards to a unix socket or to a port. What it does to its
connections is switched at run time, for the open ones and the new ones alike.
"""

import asyncio
import socket
import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from tests.faults.loop import LoopThread

# Makes close() send a reset instead of an orderly end.
LINGER_NOT = struct.pack("ii", 1, 0)


class Mode(StrEnum):
    PASS = "pass"
    REFUSE = "refuse"  # nobody listens; what was open is reset
    BLACKHOLE = "blackhole"  # connections are accepted and kept, and nothing comes through
    RESET = "reset"  # every connection is accepted and reset


@dataclass(kw_only=True)
class Cut:
    """Reset a connection once this many more bytes went through it in one direction."""

    after_bytes: int
    of_answers: bool
    times: int = 1


class Proxy:
    """One proxy; its methods may be called from any thread and return when they have worked."""

    def __init__(self, thread: LoopThread, target: Path | tuple[str, int]) -> None:
        self._thread = thread
        self._loop = thread.loop
        self.target = target
        self.mode = Mode.PASS
        self.delay_seconds = 0.0
        self.pending_cut: Cut | None = None
        self.cuts_made = 0
        self.links: set[Link] = set()
        # Keeps the port while nobody listens on it: bound, so that it is ours, and no more.
        self._holder = _bound_socket(0)
        self.port: int = self._holder.getsockname()[1]
        self._server: asyncio.Server | None = None
        thread.run(self._listen())

    def set(self, mode: Mode, *, delay_seconds: float = 0.0) -> None:
        self._thread.run(self._set(mode, delay_seconds))

    def cut(self, *, after_bytes: int, of_answers: bool, times: int = 1) -> None:
        """Reset the next `times` connections that carry `after_bytes` more in this direction."""
        self._thread.call(
            lambda: self._start_cut(Cut(after_bytes=after_bytes, of_answers=of_answers, times=times))
        )

    def forget(self) -> None:
        """Let what is open be silent for ever, as after a failover without a word; new connections pass."""
        self._thread.call(lambda: [link.forget() for link in list(self.links)])

    def heal(self) -> None:
        """Let everything pass that is to come, and cut nothing."""
        self.set(Mode.PASS)
        self._thread.call(lambda: setattr(self, "pending_cut", None))

    def reset_forgotten(self) -> None:
        self._thread.call(lambda: [link.reset() for link in list(self.links) if link.is_forgotten])

    def close(self) -> None:
        self.set(Mode.REFUSE)
        self._holder.close()

    def note_cut(self) -> None:
        self.cuts_made += 1
        assert self.pending_cut is not None
        self.pending_cut.times -= 1
        if self.pending_cut.times == 0:
            self.pending_cut = None

    def _start_cut(self, cut: Cut) -> None:
        self.pending_cut = cut
        for link in self.links:
            link.count_afresh()

    async def _set(self, mode: Mode, delay_seconds: float) -> None:
        self.mode, self.delay_seconds = mode, delay_seconds
        if mode == Mode.REFUSE and self._server is not None:
            self._server.close()
            self._server = None
        if mode != Mode.REFUSE and self._server is None:
            await self._listen()
        for link in list(self.links):
            link.obey()

    async def _listen(self) -> None:
        listening = _bound_socket(getattr(self, "port", 0))
        self._server = await self._loop.create_server(lambda: Near(Link(self)), sock=listening, backlog=1024)


class Link:
    """The two ends of one connection: near is the service's, far the server's."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.near: asyncio.Transport | None = None
        self.far: asyncio.Transport | None = None
        self.is_over = False
        self.is_forgotten = False
        self._is_connecting = False
        self._carried = {True: 0, False: 0}
        self._due_at = {True: 0.0, False: 0.0}

    def begin(self, near: asyncio.Transport) -> None:
        self.near = near
        self.proxy.links.add(self)
        # Not before it reads: older releases of Python 3.11 begin to after this, paused or not.
        self.proxy._loop.call_soon(near.pause_reading)
        self.obey()

    def obey(self) -> None:
        """Do to this connection what the proxy's mode says."""
        if self.proxy.mode in (Mode.REFUSE, Mode.RESET) or (self.is_over and self.proxy.mode != Mode.BLACKHOLE):
            self.reset()
            return
        if self.is_forgotten:
            return
        if self.far is None:
            if self.proxy.mode == Mode.PASS and not self._is_connecting:
                self._is_connecting = True
                self.proxy._loop.create_task(self._connect())
            return
        for end in (self.near, self.far):
            if end is not None and not end.is_closing():
                (end.pause_reading if self.proxy.mode == Mode.BLACKHOLE else end.resume_reading)()

    async def _connect(self) -> None:
        target = self.proxy.target
        try:
            if isinstance(target, Path):
                made: Any = await self.proxy._loop.create_unix_connection(lambda: Far(self), str(target))
            else:
                made = await self.proxy._loop.create_connection(lambda: Far(self), *target)
        except OSError:
            self.reset()
            return
        self.far = made[0]
        if self.near is None or self.near.is_closing():
            self.reset()
        else:
            self.obey()

    def carry(self, data: bytes, *, is_answer: bool) -> None:
        cut = self.proxy.pending_cut
        if cut is not None and cut.of_answers == is_answer:
            room = cut.after_bytes - self._carried[is_answer]
            self._carried[is_answer] += len(data)
            if len(data) > room:
                self._write(data[:room], is_answer=is_answer)
                self.proxy.note_cut()
                self.reset()
                return
        self._write(data, is_answer=is_answer)

    def forget(self) -> None:
        self.is_forgotten = True
        for end in (self.near, self.far):
            if end is not None and not end.is_closing():
                end.pause_reading()

    def count_afresh(self) -> None:
        self._carried = {True: 0, False: 0}

    def end(self, which: asyncio.Transport | None) -> None:
        """One end is gone: so is the other, unless that is not to be noticed."""
        self.is_over = True
        if self.proxy.mode == Mode.BLACKHOLE:
            return
        other = self.far if which is self.near else self.near
        if other is not None:
            other.close()
        self.proxy.links.discard(self)

    def reset(self) -> None:
        self.is_over = True
        for end in (self.near, self.far):
            if end is not None and not end.is_closing():
                _reset(end)
        self.proxy.links.discard(self)

    def _write(self, data: bytes, *, is_answer: bool) -> None:
        now = self.proxy._loop.time()
        due_at = max(now + self.proxy.delay_seconds, self._due_at[is_answer])
        if due_at <= now:
            self._write_now(data, is_answer)
            return
        self._due_at[is_answer] = due_at
        self.proxy._loop.call_at(due_at, self._write_now, data, is_answer)

    def _write_now(self, data: bytes, is_answer: bool) -> None:
        end = self.near if is_answer else self.far
        if end is not None and not end.is_closing():
            end.write(data)


class Near(asyncio.Protocol):
    def __init__(self, link: Link) -> None:
        self.link = link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.link.begin(cast(asyncio.Transport, transport))

    def data_received(self, data: bytes) -> None:
        self.link.carry(data, is_answer=False)

    def connection_lost(self, error: Exception | None) -> None:
        self.link.end(self.link.near)


class Far(asyncio.Protocol):
    def __init__(self, link: Link) -> None:
        self.link = link

    def data_received(self, data: bytes) -> None:
        self.link.carry(data, is_answer=True)

    def connection_lost(self, error: Exception | None) -> None:
        self.link.end(self.link.far)


def _bound_socket(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def _reset(end: asyncio.Transport) -> None:
    raw = end.get_extra_info("socket")
    if raw is not None and raw.family == socket.AF_INET:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    end.abort()
