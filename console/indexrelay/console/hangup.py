"""SIGHUP, from the first moment of a role on.

Its default action ends a process, and a service manager takes that for an end in order, and does
not start the role again. So `indexrelay.console.main` notes it before it imports what a role needs:
settings that change while the role starts are read by it, or read again.

A terminal that goes away sends the same signal. Who was started from one ends then, as ever; but
not where the signal was ignored at start: so ``nohup`` starts a process that is to stay.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Hangup:
    """Whether SIGHUP came. It takes no lock: a signal may come while its own thread clears it."""

    def __init__(self) -> None:
        self._came = False

    def is_set(self) -> bool:
        """Whether it came since `clear`."""
        return self._came

    def set(self) -> None:
        """It came."""
        self._came = True

    def clear(self) -> None:
        """Forget it; before what it asks for is done."""
        self._came = False


class _Taker:
    """The handler; it is found again as the one that is installed."""

    def __init__(self, *, ends_with_terminal: bool) -> None:
        self.came = Hangup()
        self._had_terminal = ends_with_terminal and _has_terminal()

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        if self._had_terminal and not _has_terminal():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.came.set()


@contextmanager
def noting_hangup() -> Iterator[Hangup]:
    """What SIGHUP sets for the length of a ``with`` block, on the main thread.

    Where it is noted already, what has come since then counts. Where the terminal has gone away
    that this process was started from, it is SIGTERM instead, unless SIGHUP was ignored before.
    """
    before = signal.getsignal(signal.SIGHUP)
    if isinstance(before, _Taker):
        yield before.came
        return
    taker = _Taker(ends_with_terminal=before is not signal.SIG_IGN)
    signal.signal(signal.SIGHUP, taker)
    try:
        yield taker.came
    finally:
        signal.signal(signal.SIGHUP, before)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
