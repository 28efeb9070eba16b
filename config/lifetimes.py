"""Processes that end when the one that started them does, however that one ends."""

import ctypes
import signal
import sys


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this signal to the calling process when its parent dies; Linux only.

    For a process that has just been forked: what it then executes keeps it, what it forks does not.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)
