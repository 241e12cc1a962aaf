"""What a build's process may use, and what happens to it when its parent dies.

The memory limit is on data segments (``RLIMIT_DATA``: heap and private anonymous maps, see
setrlimit(2)); ``RLIMIT_AS`` would count mapped index files as well and trip over them.
"""

import ctypes
import os
import resource
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)
NICENESS = 10
"""Queries on the same host come first."""


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, which forked it, ends, however it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def limit_memory(allowance_bytes: int) -> None:
    """Allow this process that much more private memory than it has now.

    The libraries that were loaded before the fork are not the build's doing, so they do not count.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + allowance_bytes,) * 2)


def be_nice() -> None:
    """Let other processes of the host go first."""
    os.nice(NICENESS)


def _data_bytes() -> int:
    """This process's data segments, as ``VmData`` of proc(5) counts them."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmData in /proc/self/status")
