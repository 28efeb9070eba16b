"""An event loop in a thread of its own, for the proxies and the receiver."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

CALL_SECONDS = 30


class LoopThread:
    """Runs what other threads hand over, and returns when it is done."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], Result]) -> Result:
        """Call `function` in the loop's thread."""

        async def called() -> Result:
            return function()

        return self.run(called())

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(CALL_SECONDS)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CALL_SECONDS)
        self.loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
