"""The open connections, known by their two ends, so that one can be looked at before it is used again.

libcurl looks whether a kept connection still lives only if it has been idle for a second,
and makes up for a dead one by sending the request a second time. That second sending is
forbidden (see handle.py), so a dead connection has to be found before anything is sent.
"""

import contextlib
import select
import socket
from collections.abc import Sequence
from typing import NamedTuple


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
        self._ends: dict[int, Ends] = {}

    def note(self, ends: Ends, descriptors: Sequence[int]) -> None:
        """Note a new connection; its descriptor is the one of `descriptors` with its local port."""
        for descriptor in descriptors:
            if _local_port(descriptor) == ends.local_port:
                if (earlier := self._ends.get(descriptor)) is not None:
                    self._probes.pop(earlier, None)
                self._ends[descriptor] = ends
                self._probes[ends] = _probe(descriptor)

    def can_be_reused(self, ends: Ends) -> bool:
        """Return whether the other side neither closed the idle connection nor sent something unasked."""
        probe = self._probes.get(ends)
        return probe is not None and not probe.poll(0)


def _probe(descriptor: int) -> select.poll:
    probe = select.poll()
    probe.register(descriptor, select.POLLIN | select.POLLRDHUP)
    return probe


def _local_port(descriptor: int) -> int | None:
    with contextlib.suppress(OSError):
        connection = socket.socket(fileno=descriptor)
        try:
            return int(connection.getsockname()[1])
        finally:
            connection.detach()  # libcurl's, not to be closed here
    return None
