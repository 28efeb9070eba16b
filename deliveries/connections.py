"""The open connections, known by their two ends, so that one can be looked at before it is used again.

libcurl looks whether a kept connection still lives only if it has been idle for a second,
and makes up for a dead one by sending the request a second time. That second sending is
forbidden (see handle.py), so a dead connection has to be found before anything is sent.
"""

import contextlib
import fcntl
import os
import select
import socket
import struct
import termios
from collections.abc import Sequence
from typing import NamedTuple

# Where the kernel tells the number of bytes received (tcpi_bytes_received of struct tcp_info).
_RECEIVED_AT = 128
# What is raised if the connection was closed meanwhile, or the kernel is an imitation that tells less (a sandbox).
_UNTOLD = (OSError, struct.error)


class Ends(NamedTuple):
    """What libcurl tells of a connection, in its order; open connections differ in it."""

    remote_ip: str
    local_ip: str
    remote_port: int
    local_port: int


class Connections:
    """Descriptors belong to libcurl, which closes them without a word: entries may be stale.

    A stale entry does no harm: a connection is noted when it is made, in the place of an
    older one with the same ends or the same descriptor, so that its entry is right while
    it lives, and there are never more entries than there were descriptors open at once.
    """

    def __init__(self) -> None:
        self._probes: dict[Ends, select.poll] = {}
        self._descriptors: dict[Ends, int] = {}
        self._ends: dict[int, Ends] = {}
        self._inodes: dict[int, int] = {}

    def add(self, descriptor: int) -> None:
        """Note a socket that is about to be connected."""
        self._inodes[descriptor] = os.fstat(descriptor).st_ino

    def read_bytes(self) -> dict[int, int]:
        """Return how much has been read from each connection, by its descriptor. For any thread."""
        found = {}
        for descriptor, inode in list(self._inodes.items()):
            with contextlib.suppress(*_UNTOLD):
                if os.fstat(descriptor).st_ino == inode:
                    found[descriptor] = _read_bytes(descriptor)
        return found

    def note(self, ends: Ends, descriptors: Sequence[int]) -> None:
        """Note a new connection; its descriptor is the one of `descriptors` with its local port."""
        for descriptor in descriptors:
            if _local_port(descriptor) == ends.local_port:
                if (earlier := self._ends.get(descriptor)) is not None:
                    self._probes.pop(earlier, None)
                    self._descriptors.pop(earlier, None)
                self._ends[descriptor] = ends
                self._descriptors[ends] = descriptor
                self._probes[ends] = _probe(descriptor)

    def read_bytes_of(self, ends: Ends) -> int | None:
        """Return how much has been read from a connection that is in use; None if it is not known."""
        with contextlib.suppress(KeyError, *_UNTOLD):
            return _read_bytes(self._descriptors[ends])
        return None

    def can_be_reused(self, ends: Ends) -> bool:
        """Return whether the other side neither closed the idle connection nor sent something unasked."""
        probe = self._probes.get(ends)
        return probe is not None and not probe.poll(0)


def _probe(descriptor: int) -> select.poll:
    probe = select.poll()
    probe.register(descriptor, select.POLLIN | select.POLLRDHUP)
    return probe


def _read_bytes(descriptor: int) -> int:
    """Return how much came over a connection and does not wait to be read any more."""
    connection = socket.socket(fileno=descriptor)
    try:
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + 8)
    finally:
        connection.detach()  # libcurl's, not to be closed here
    received = int(struct.unpack_from("=Q", state, _RECEIVED_AT)[0])
    waiting = int(struct.unpack("=i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0])
    return received - waiting


def _local_port(descriptor: int) -> int | None:
    with contextlib.suppress(OSError):
        connection = socket.socket(fileno=descriptor)
        try:
            return int(connection.getsockname()[1])
        finally:
            connection.detach()  # libcurl's, not to be closed here
    return None
