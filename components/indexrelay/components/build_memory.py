"""How much memory a build may take: what it makes, and so much beside it.

An operator knows what a host can spare, and not how large an index will be next year. So the limit
is on what a build needs *besides*: chunks on their way, rows to train on. Before it makes something
large a kind says how large, and the limit moves up by that much; a build that eats more than it
said still meets it. Files that are mapped do not count, since the kernel may drop their pages.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


def _no_limit(_bytes: int) -> None:
    """There is none to raise."""


@dataclass(frozen=True, slots=True)
class BuildMemory:
    """What one build may hold in memory of its own."""

    working_bytes: int | None = None
    """Beside what it makes; ``None``: no limit."""
    raise_limit: Callable[[int], None] = _no_limit
    """Lets the process hold so many bytes more."""

    def hold(self, bytes_: int) -> None:
        """Say that something of this size is about to be made; call it before."""
        self.raise_limit(bytes_)

    def share(self, part: float, *, at_most: int) -> int:
        """Bytes for one purpose: ``part`` of the working memory, but at most ``at_most``."""
        if self.working_bytes is None:
            return at_most
        return min(int(part * self.working_bytes), at_most)


UNLIMITED: Final = BuildMemory()
"""For builds in the caller's own process."""
