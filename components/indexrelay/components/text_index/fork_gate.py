"""Lets the process fork only while none of its threads is inside SQLite.

SQLite keeps locks for the whole process, around its memory and its page cache. A thread that holds
one of them does not exist in a forked child, but the lock does, taken, and the first query there
waits for ever: with three searching threads that is what three of seven forks came to. So threads
say when they go in, and a fork (web servers that load the application first, and then fork their
workers) waits until all are out, a query's time at most, and keeps newcomers waiting meanwhile.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


class ForkGate:
    """One for the process, since SQLite's locks are: `fork_gate` gives it."""

    def __init__(self) -> None:
        # Its lock may be taken again by the thread that has it: anywhere in here the interpreter
        # may collect garbage, and with it close the connections of an index that nobody uses.
        self._changed = threading.Condition(threading.RLock())
        self._mine = threading.local()
        self._inside = 0
        self._forking = False
        self._forker_was_inside = False
        os.register_at_fork(
            before=self._shut, after_in_parent=self._open, after_in_child=self._open
        )

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Around everything that SQLite is asked to do; waits for a fork that is under way."""
        if getattr(self._mine, "inside", False):
            yield
            return
        with self._changed:
            while self._forking:
                self._changed.wait()
            self._inside += 1
            self._mine.inside = True
        try:
            yield
        finally:
            with self._changed:
                self._mine.inside = False
                self._inside -= 1
                if self._forking:
                    self._changed.notify_all()

    def _shut(self) -> None:
        self._changed.acquire()
        # A signal's handler may fork in the middle of this thread's own query.
        self._forker_was_inside = getattr(self._mine, "inside", False)
        self._mine.inside = self._forking = True
        while self._inside > self._forker_was_inside:
            self._changed.wait()

    def _open(self) -> None:
        self._mine.inside, self._forking = self._forker_was_inside, False
        self._changed.notify_all()
        self._changed.release()


@cache
def fork_gate() -> ForkGate:
    """The gate of this process."""
    return ForkGate()
