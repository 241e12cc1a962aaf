"""Shortens the interpreter's switch interval while a release is loaded, so that queries go first.

A thread that comes out of FAISS waits for the interpreter's lock until the thread that holds it has
had it for a whole switch interval: 5 ms by default, which is longer than nearly every query. A
reload computes for a few milliseconds. Where it keeps the lock for a tenth of one at most, a query
that ends meanwhile hardly waits (figures: docs/decisions/012).
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

INTERVAL_SECONDS: Final = 0.0001
"""Ten to twenty times what it costs to hand the lock over."""
_MICROSECOND: Final = 1e-6
"""Python keeps whole ones, and not always the nearest."""


class SwitchInterval:
    """The switch interval is one for the whole process, so all reloads of a process share this."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reloads = 0
        self._before = self._mine = 0.0

    @contextmanager
    def shortened(self) -> Iterator[None]:
        """Shorten it as long as the ``with`` lasts.

        What the process had is put back afterwards; an interval that is shorter already stays, and
        so does one that other code sets meanwhile.
        """
        with self._lock:
            self._reloads += 1
            if self._reloads == 1:
                self._before = sys.getswitchinterval()
                self._mine = min(self._before, INTERVAL_SECONDS)
                sys.setswitchinterval(self._mine)
        try:
            yield
        finally:
            with self._lock:
                if self._reloads == 1:
                    self._put_back()
                self._reloads = max(0, self._reloads - 1)  # 0: forked meanwhile

    def after_fork_in_child(self) -> None:
        """The reloads of the parent end there and not here."""
        self._lock = threading.Lock()
        if self._reloads:
            self._put_back()
        self._reloads = 0

    def _put_back(self) -> None:
        if abs(sys.getswitchinterval() - self._mine) <= _MICROSECOND:
            sys.setswitchinterval(self._before)


switch_interval: Final = SwitchInterval()
os.register_at_fork(after_in_child=switch_interval.after_fork_in_child)
