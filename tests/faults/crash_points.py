"""Points at which a process of the suite ends itself, or freezes, when it is armed to.

The product knows nothing of them: its functions are wrapped here, in processes that the
suite has started. A point is armed by a file, so that it works in processes that run
already, and the first process that passes takes it. What happened goes to a journal.

after_claim     requests are claimed and committed, none of them is sent
before_send     the next request is about to be sent
before_settle   the answers are here, and not yet in the database
after_settle    they are, and nobody else knows
after_commit    web: a request is stored, its call unanswered, no worker woken
before_wake_up  web: a request is stored and answered, the wake-up not yet in Redis
"""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

POINTS = ("after_claim", "before_send", "before_settle", "after_settle", "after_commit", "before_wake_up")

_passed: Counter[str] = Counter()
_in_flight: set[UUID] = set()


@dataclass(frozen=True, kw_only=True)
class Crash:
    """A line of the journal; `in_flight` counts the calls begun and not settled by that process."""

    point: str
    pid: int
    at: float
    in_flight: int


class CrashPoints:
    """The suite's side: arms points, and reads what came of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._armed = 0
        folder.mkdir()
        folder.chmod(0o755)

    def arm(
        self,
        point: str,
        *,
        passes: int = 0,
        marker: str = "",
        once: bool = True,
        number: signal.Signals = signal.SIGKILL,
    ) -> None:
        """End the process that comes to `point` after `passes` that went by.

        With a `marker`, only for payloads that contain it; not `once`, each process that comes.
        """
        assert point in POINTS
        self._armed += 1
        order = {"id": self._armed, "passes": passes, "marker": marker, "once": once, "signal": int(number)}
        unfinished = self._folder / "unfinished"
        unfinished.write_text(json.dumps(order))
        unfinished.rename(self._folder / point)

    def disarm(self) -> None:
        for point in POINTS:
            (self._folder / point).unlink(missing_ok=True)

    def crashes(self) -> list[Crash]:
        journal = self._folder / "journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [Crash(**json.loads(line)) for line in lines]


def install(folder: Path) -> None:
    """Wrap the product's functions in this process."""
    from deliveries import claims, queue, settlements
    from deliveries.transport import Transport

    def reach(point: str, payloads: Iterable[bytes] = ()) -> None:
        _reach(folder, point, payloads)

    _wrap(claims, "claim", after=lambda claim: claim.requests and reach("after_claim", _payloads(claim.requests)))
    _wrap(Transport, "send", before=lambda _, call: _before_send(reach, call))
    _wrap(
        settlements,
        "settle",
        before=lambda settled: reach("before_settle", _payloads(one.request for one in settled)),
        after=lambda _: reach("after_settle"),
        done=lambda settled: _in_flight.difference_update(one.request.id for one in settled),
    )
    _wrap(queue, "wake_up", before=lambda: reach("after_commit"))
    _wrap(queue, "_push", before=lambda name, task: reach("before_wake_up"))


def _before_send(reach: Callable[..., None], call: Any) -> None:
    reach("before_send", [call.body])
    _in_flight.add(call.tag.request.id)


def _payloads(requests: Iterable[Any]) -> list[bytes]:
    return [request.payload for request in requests]


def _nothing(*arguments: object) -> None:
    pass


def _wrap(
    owner: Any,
    name: str,
    *,
    before: Callable[..., object] = _nothing,
    after: Callable[..., object] = _nothing,
    done: Callable[..., object] = _nothing,
) -> None:
    """Have `before` and `done` called with the arguments, and `after` with the result."""
    wrapped = getattr(owner, name)

    def wrapper(*arguments: Any, **options: Any) -> Any:
        before(*arguments)
        result = wrapped(*arguments, **options)
        after(result)
        done(*arguments)
        return result

    setattr(owner, name, wrapper)


def _reach(folder: Path, point: str, payloads: Iterable[bytes]) -> None:
    file = folder / point
    try:
        order = json.loads(file.read_text())
    except FileNotFoundError:
        return
    marker = order["marker"].encode()
    if marker and not any(marker in payload for payload in payloads):
        return
    name = f"{point} {order['id']}"
    _passed[name] += 1
    if _passed[name] <= order["passes"]:
        return
    if order["once"]:
        try:
            file.unlink()
        except FileNotFoundError:  # another process was first
            return
    line = {"point": point, "pid": os.getpgrp(), "at": time.monotonic(), "in_flight": len(_in_flight)}
    with (folder / "journal").open("a") as journal:
        journal.write(json.dumps(line) + "\n")
    os.killpg(0, order["signal"])
