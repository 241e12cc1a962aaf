"""What a build's process died of, and whether the cause lies outside of the build.

A cause outside is transient: a full disk or the kernel's want of memory says nothing of the
component, whose build is tried for as long as that lasts (`indexrelay.health.backoff`).
"""

import errno
import os
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from indexrelay.rebuilder.errors import BuildDiedError
from indexrelay.schemas.system_advice import advice_on

_SPARE_BYTES: Final = 1 << 20
"""A volume with less than this is full: no build of any use fits."""


def killed(number: int, workdir: Path, *, memory_bytes: int | None) -> BuildDiedError:
    """The error for a build that signal ``number`` ended, while its work folder is still there."""
    if number == signal.SIGBUS:
        full = full_volume(workdir)
        if full is not None:
            return BuildDiedError(
                f"no space left on the volume of {full}: a write to a mapped file killed the "
                f"build's process (SIGBUS); {advice_on(errno.ENOSPC)}",
                passing=True,
            )
    how = _signal_name(number)
    if number == signal.SIGKILL:  # nobody here sent it: that is another error
        how += (
            ", from outside: by the kernel because memory ran out (its log says so), or by somebody"
        )
    if memory_bytes is not None:
        how += f"; its memory limit is {memory_bytes:,} bytes beside what it makes"
    return BuildDiedError(
        f"the build's process was killed by {how}", passing=number == signal.SIGKILL
    )


def full_volume(folder: Path) -> Path | None:
    """Which place has no room left, asked when a write to a mapped file killed a build's process.

    A quota does not show in the volume's free space, and what the build itself took may be free
    again by now. So a file of the work folder that has fewer blocks than bytes is enough: what it
    lacks is what could not be had.
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
