"""A few file descriptors that are kept for reloads.

A process may have every descriptor in use: for connections of its clients, for files that a library
forgot. Then no index can be opened and Redis not be reached, and it would go on answering with what
it served before. So some are held open, and lent to the thread that reloads when there are no
others.

Whoever takes a descriptor in the moment in which they are lent has it. The reader service therefore
has fewer connections than descriptors; a server that takes every connection has to be told its own
limit.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Final

KEPT: Final = 32
"""What one component needs for the moment of its load, its directory and its files, several times
over, and a connection to Redis."""


class DescriptorReserve:
    """Holds descriptors and lends them; for one thread at a time."""

    def __init__(self, count: int = KEPT) -> None:
        self._count = count
        self._held: list[int] = []

    def __len__(self) -> int:
        return len(self._held)

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Let the body have them where no others are left; they are taken back afterwards."""
        self.fill()
        if self._is_needed():
            self.close()
        try:
            yield
        finally:
            self.fill()

    def fill(self) -> None:
        """Hold as many as can be had, up to the count."""
        with contextlib.suppress(OSError):
            while len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Hold none; safe twice."""
        while self._held:
            os.close(self._held.pop())

    def _is_needed(self) -> bool:
        """Whether fewer can be opened than are held back."""
        tried: list[int] = []
        try:
            while len(tried) < self._count:
                tried.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return True
        finally:
            for each in tried:
                os.close(each)
        return False
