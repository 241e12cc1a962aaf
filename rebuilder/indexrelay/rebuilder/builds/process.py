"""The process of a build: what it may use, where its output goes, and why it died.

The memory limit is on data segments (``RLIMIT_DATA``: heap and private anonymous maps, see
setrlimit(2)); ``RLIMIT_AS`` would count mapped index files as well.

A build has a pipe in place of its standard output and error, and a thread of the rebuilder reads
the other end. So nothing that a user's function prints, or a C library, or a child of the child,
gets between a command's JSON or the lines of a log, and all of it is logged with its component.
Beyond a limit the rest is dropped; the build goes on.

A death by a cause outside of the build is transient: a full disk, or a kernel without memory, is no
fault of the component, and its build is retried for as long as that lasts.
"""

import ctypes
import errno
import os
import resource
import select
import signal
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from indexrelay.components.kind import UNLIMITED, BuildMemory
from indexrelay.rebuilder.builds import BuildDiedError
from indexrelay.schemas.clock import SupervisedThread
from indexrelay.schemas.diagnostics import advice_on
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import ComponentResult

_log = get_logger(__name__)
LOGGER: Final = __name__
"""Commands that answer and end show warnings only, and what a build prints all the same."""
MESSAGE_BYTES: Final = 128 * 1024
"""The most that one message between the processes may take: below the kernel's default socket
buffer (about 200 KiB)."""

_LEAST_PRIORITY = 19  # nice(2)
_PR_SET_PDEATHSIG = 1  # prctl(2)
_OPENBLAS_BYTES = 128 * 1024 * 1024
"""The buffer of FAISS's on processors with AVX-512, elsewhere less; where it cannot be mapped it
crashes."""
_PRODUCT_BYTES = 40 * 1024 * 1024
"""NumPy's buffer for a product, of which each of several threads that compute one needs its own."""
_PRODUCT_ROWS = 256
"""A product of matrices of this size is computed by all threads; it takes a millisecond."""
_STACK_BYTES = 1024 * 1024
"""Of a Python thread. It counts whole, however little of it is touched; 8 MiB is the default."""


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when ``parent``, which forked it, ends, however it ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def group_stands_back(niceness: int) -> bool:
    """Have all processes of this session stand back behind those of other sessions; whether it is
    done, or cannot be.

    Where the kernel groups processes by their session, which most distributions have it do,
    niceness counts only within a group: sched(7), "The autogroup feature". A reader that another
    service or terminal started would notice nothing of it.
    """
    wanted = min(os.nice(0) + niceness, _LEAST_PRIORITY)
    try:
        Path("/proc/self/autogroup").write_text(str(wanted), encoding="ascii")
    except OSError as error:
        return error.errno != errno.EAGAIN  # another session was changed a moment ago
    return True


def limit_memory(allowance_bytes: int | None, *, threads: int = 1) -> BuildMemory:
    """Allow this process that much more private memory than it has now; a build may raise that.

    ``None`` lifts the limit of an earlier build; ``threads`` are those of the build.

    What was loaded before the fork does not count, nor does what the two copies of OpenBLAS,
    NumPy's and FAISS's, map at their first products of matrices and hardly touch. Only the soft
    limit is set: it stops a build that takes more than it planned for, and a build that plans for
    more raises it by that. Python's threads get small stacks from here on.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if allowance_bytes is None:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        return UNLIMITED
    threading.stack_size(_STACK_BYTES)
    _use_numpys_openblas()
    libraries = _OPENBLAS_BYTES + (threads - 1) * _PRODUCT_BYTES
    _set_soft_limit(_data_bytes() + libraries + allowance_bytes, hard)
    return BuildMemory(working_bytes=allowance_bytes, raise_limit=_raise_limit)


def _use_numpys_openblas() -> None:
    """Have NumPy's OpenBLAS start its threads and map its buffers, which count from here on."""
    square = np.ones((_PRODUCT_ROWS, _PRODUCT_ROWS), dtype=np.float32)
    np.matmul(square, square)


def _raise_limit(more_bytes: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        _set_soft_limit(soft + more_bytes, hard)


def _set_soft_limit(wanted: int, hard: int) -> None:
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """This process's data segments, as ``VmData`` of proc(5) counts them."""
    return _kilobytes("VmData") * 1024


def _kilobytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise OSError(f"no {field} in /proc/self/status")


class Usage:
    """What this process uses from here on."""

    def __init__(self) -> None:
        # The peak begins anew: proc(5), "clear_refs". Where it cannot, an earlier build counts too.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._began = time.process_time()

    def of(self, result: ComponentResult) -> ComponentResult:
        """The result of what was done since, with what it used."""
        used = {
            "cpu_seconds": time.process_time() - self._began,
            "peak_memory_bytes": _kilobytes("VmHWM") * 1024,
        }
        return result.model_copy(update=used)


_PIECE_BYTES: Final = 64 * 1024
_QUIET_SECONDS: Final = 0.05
"""What is written in one go, such as a traceback, is one event: it ends after this pause."""
_MOST_BYTES: Final = 100_000
"""Of one build; what comes after it is read and counted."""
_LINGER_SECONDS: Final = 0.2
"""How long what the build left in the pipe is waited for; a process that it left may hold it."""


class Output:
    """The write end of a pipe for a child, and a thread that logs what comes out of it.

    Hand `descriptor` to the child inside the ``with``; leaving it waits for the rest.
    """

    def __init__(self, **fields: str) -> None:
        """``fields`` go into every event: ``component="map"``."""
        self._fields = fields
        self._read, self.descriptor = os.pipe()
        self._ended, self._end = os.pipe()
        self._bytes = 0
        # It never stops reading: a full pipe stops the build.
        self._thread = SupervisedThread(
            self._listen,
            name="indexrelay-output",
            wait=lambda seconds: bool(select.select([self._ended], [], [], seconds)[0]),
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.descriptor)
        os.close(self._end)
        self._thread.join()
        for descriptor in (self._read, self._ended):
            os.close(descriptor)

    def _listen(self) -> None:
        """Read until no process can write any more, or the build has ended and nothing comes."""
        text = bytearray()
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        over = False
        while True:
            wait = _LINGER_SECONDS if over else _QUIET_SECONDS if text else None
            ready = [number for number, _ in poll.poll(None if wait is None else wait * 1000)]
            if self._read in ready:
                piece = os.read(self._read, _PIECE_BYTES)
                text += piece
                if piece and len(text) < _PIECE_BYTES:
                    continue
                self._write_log(text)
                text.clear()
                if not piece:
                    break
            elif self._ended in ready:
                # What the build wrote is in the pipe already. A process that it left behind may
                # hold the pipe open without end, and is not waited for.
                over = True
                poll.unregister(self._ended)
            else:
                self._write_log(text)
                text.clear()
                if over:
                    break
        if self._bytes > _MOST_BYTES:
            _log.warning(
                "build.output_truncated", **self._fields, bytes=self._bytes, shown=_MOST_BYTES
            )

    def _write_log(self, output: bytearray) -> None:
        room = _MOST_BYTES - self._bytes
        self._bytes += len(output)
        text = output[: max(room, 0)].decode(errors="replace").rstrip()
        if text:
            _log.info("build.output", **self._fields, text=text)


_SPARE_BYTES: Final = 1 << 20
"""A volume with less than this is full: no build of any use fits."""


def death_by_signal(number: int, workdir: Path, *, memory_bytes: int | None) -> BuildDiedError:
    """The error for a build that signal ``number`` ended, while its work folder is still there."""
    if number == signal.SIGBUS:
        full = full_volume(workdir)
        if full is not None:
            return BuildDiedError(
                f"no space left on the volume of {full}: a write to a mapped file killed the "
                f"build's process (SIGBUS); {advice_on(errno.ENOSPC)}",
                transient=True,
            )
    how = _signal_name(number)
    if number == signal.SIGKILL:  # not sent by the rebuilder: that would be another error
        how += (
            ", from outside: by the kernel because memory ran out (its log says so), or by somebody"
        )
    if memory_bytes is not None:
        how += f"; its memory limit is {memory_bytes:,} bytes beside what it makes"
    return BuildDiedError(
        f"the build's process was killed by {how}", transient=number == signal.SIGKILL
    )


def full_volume(folder: Path) -> Path | None:
    """The place that has no room left, when a write to a mapped file killed a build's process.

    A quota does not show in the volume's free space, and what the build itself took may be free
    again by now. So a file of the work folder that has fewer blocks than bytes is enough: the
    missing blocks are those that the volume could not give.
    """
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # removed meanwhile
                found = Path(root, name).lstat()
                if found.st_blocks * 512 < found.st_size:
                    return folder
    for place in (folder, Path(tempfile.gettempdir()), Path("/dev/shm")):  # noqa: S108 - asked only
        with suppress(OSError):
            volume = os.statvfs(place)
            if volume.f_bavail * volume.f_frsize < _SPARE_BYTES:
                return place
    return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal between the two that have names
        return f"signal {number}"
