"""Calls at once, from threads with database connections of their own."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connection

Result = TypeVar("Result")


def at_once(count: int, call: Callable[[], Result]) -> list[Result]:
    """Make the same call in so many threads at once; return what came of each, or raise what one raised."""
    together = threading.Barrier(count)

    def run(_: int) -> Result:
        try:
            together.wait()
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))
