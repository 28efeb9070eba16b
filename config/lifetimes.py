"""Processes that end when the one that started them does, however that one ends."""

import ctypes
import multiprocessing
import signal
import sys


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this signal to the calling process when its parent dies; Linux only.

    For a process that has just been forked: what it then executes keeps it, what it forks does not.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, number)


def end_as_told_by_web_server() -> None:
    """Have a process of the web server end with its parent, and at once on a signal while it loads.

    Left alone it would go on with the settings it has, and share the port with what is started after it.
    granian forks its processes with the handlers of their parent, which in a child only lose
    the signal, until they have their own; the parent would then wait for the child for ever.
    """
    if multiprocessing.parent_process() is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        end_with_parent(signal.SIGTERM)
