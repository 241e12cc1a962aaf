"""Becomes another program that ends when its parent does: ``PARENT_PID PROGRAM ARGUMENTS…``.

Run as a script of its own between fork and the program, because code that runs in a forked child
before exec (``preexec_fn``) can hang in a process with threads. Linux only: elsewhere
nothing ends it.

SIGHUP is ignored until the program takes it. One that came before would end it; and a terminal that
goes away is the parent's business.
"""

import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def main(parent: int, command: list[str]) -> None:
    """Ask the kernel for SIGTERM at the parent's death, then become ``command``."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent:
            sys.exit("the parent is gone already")
    os.execv(command[0], command)  # noqa: S606 - a list that `ServerProcess` wrote, and no shell


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
