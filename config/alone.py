"""Run a command that nobody else in this folder runs at the same time.

`make` installs in its environment so: a second `make run` beside the first would take it away.
"""

import fcntl
import os
import sys
from pathlib import Path

# Any file that is there from the first moment on.
LOCK = Path(__file__).resolve().parent.parent / "Makefile"


def main() -> None:
    lock = os.open(LOCK, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("Another `make` is installing in this folder. Wait until it has finished, and try again.")
    os.set_inheritable(lock, True)  # noqa: FBT003 - the command holds it as long as it runs
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the Makefile's own commands  # nosec B606


if __name__ == "__main__":
    main()
