"""How many entries to ask for at once: fewer where they are large.

An entry may be as large as the server takes it, and a reply that is larger than the server wants to
hold for one client (``client-output-buffer-limit``) ends the connection: whoever asked for so much
once would ask for as much again, and never get it. So after a read that broke off, and after one
that brought much, the next one asks for fewer, down to one; after small ones for more again.
"""

from collections.abc import Iterable
from typing import Final

MOST_BYTES: Final = 4 * 1024 * 1024
"""Of one reply, as far as the last one tells: a hundredth of a second on a local network."""

_SHRINK: Final = 8
_GROW: Final = 2


class ReadSize:
    """For one stream; used by the one thread that reads it."""

    def __init__(self) -> None:
        self._most: int | None = None
        """``None``: as many as anybody wants."""

    def of(self, wanted: int) -> int:
        """How many to ask for, of so many that are ``wanted``."""
        return wanted if self._most is None else min(wanted, self._most)

    def broke_off(self, asked: int) -> None:
        """A read of so many brought an error."""
        self._most = max(1, asked // _SHRINK)

    def brought(self, asked: int, sizes: Iterable[int]) -> None:
        """A read of so many brought entries of these sizes, in bytes."""
        size = sum(sizes)
        if size > MOST_BYTES:
            self._most = max(1, asked * MOST_BYTES // size)
        elif self._most is not None:
            self._most = max(asked, self._most) * _GROW
            if self._most > _ENOUGH:
                self._most = None


_ENOUGH: Final = 10_000
"""Nobody wants as many."""
