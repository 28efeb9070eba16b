"""End the connection that a step of the loop does not come away from.

OpenSSL takes what belongs to TLS and is no part of an answer (session tickets, new keys) and does not return
as long as more of it is there. A receiver that sends it faster than it can be worked through would hold the
loop, and with it every other call, for as long as it liked: no limit of a call is looked at within a step, and
libcurl has none for this. So a thread looks whether a step goes on and on, and takes from it the connection
that it reads from.
"""

import contextlib
import logging
import os
import socket
import threading
import time
from typing import Self

from deliveries.connections import Connections

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.1

# More than a step reads of one connection by itself: libcurl leaves it for the next step after some 160 KB.
MAX_STEP_BYTES = 262_144


class Watch:
    """Each step of the loop is made within one, `with watch:`, which costs next to nothing."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._steps = 0
        # The number of the step that is being made, None in between.
        self._step: int | None = None
        self._began = 0.0
        self._is_of_many = False
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._thread.start()

    def __enter__(self) -> None:
        self._steps += 1
        self._step = self._steps
        self._began = time.thread_time()

    def __exit__(self, *error: object) -> None:
        self._step = None
        self._is_of_many = False

    def of_many(self) -> Self:
        """Return this for a step over any number of calls, whose work is no single one's."""
        self._is_of_many = True
        return self

    @property
    def computed_seconds(self) -> float:
        """How long the processor worked for one call since its step began. For the thread that makes the steps."""
        return 0.0 if self._is_of_many else time.thread_time() - self._began

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        seen: int | None = None
        first: dict[int, int] | None = None
        while not self._is_over.wait(LOOK_SECONDS):
            step = self._step
            if step is None or step != seen:
                seen, first = step, None
                continue
            # Asking for each connection has its price: only a step that was there at the last look is worth it.
            sizes = self._connections.read_bytes()
            if first is None:
                first = sizes
                continue
            for descriptor, size in sizes.items():
                if size - first.get(descriptor, size) > MAX_STEP_BYTES:
                    self._end(descriptor, step)

    def _end(self, descriptor: int, step: int) -> None:
        """Put a socket that was never connected in its place: closed, its number would be free for another."""
        with contextlib.suppress(OSError), socket.socket() as unconnected:
            if self._step == step:
                os.dup2(unconnected.fileno(), descriptor, inheritable=False)
                logger.warning("a receiver held up all calls: its connection was ended")
