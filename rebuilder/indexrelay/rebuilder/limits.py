"""What a build's process may use, and what happens to it when its parent dies.

The memory limit is on data segments (``RLIMIT_DATA``: heap and private anonymous maps, see
setrlimit(2)); ``RLIMIT_AS`` would count mapped index files as well and trip over them.
"""

import ctypes
import os
import resource
import signal
import threading
from pathlib import Path

from indexrelay.components.build_memory import UNLIMITED, BuildMemory

_PR_SET_PDEATHSIG = 1  # prctl(2)
_OPENBLAS_BYTES = 128 * 1024 * 1024
"""Its buffer on processors with AVX-512, elsewhere less; where it cannot be mapped it crashes."""
_STACK_BYTES = 1024 * 1024
"""Of a Python thread. It counts whole, however little of it is touched; 8 MiB is the default."""


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, which forked it, ends, however it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def limit_memory(allowance_bytes: int | None) -> BuildMemory:
    """Allow this process that much more private memory than it has now, and what it says it makes.

    ``None`` lifts the limit of an earlier build.

    The libraries that were loaded before the fork are not the build's doing, so they do not count,
    nor does what OpenBLAS maps for itself at its first product of matrices, and hardly touches.
    Only the soft limit is set: it is there against a build that eats more than it knows of, and a
    build that knows raises it. Python's threads get small stacks from here on.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if allowance_bytes is None:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        return UNLIMITED
    threading.stack_size(_STACK_BYTES)
    _set_soft_limit(_data_bytes() + _OPENBLAS_BYTES + allowance_bytes, hard)
    return BuildMemory(working_bytes=allowance_bytes, raise_limit=_raise_limit)


def be_nice(niceness: int) -> None:
    """Let other processes of the host go first, at the processor and at the disk.

    Where nobody set an I/O priority it follows from the niceness: see ioprio_set(2).
    """
    os.nice(niceness)


def _raise_limit(more_bytes: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        _set_soft_limit(soft + more_bytes, hard)


def _set_soft_limit(wanted: int, hard: int) -> None:
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """This process's data segments, as ``VmData`` of proc(5) counts them."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmData in /proc/self/status")
