"""Which builds fit into memory side by side: ``rebuilder.max_memory_bytes``.

What a build takes is only known when it is over. So each is estimated before it begins, rather too
high than too low: its entries once, as rows on their way or to train on, and what it makes: as much
as its last version has, or its entries again where that is more. Builds that would exceed the limit
together wait for each other; one that exceeds it alone fails at once, with both figures.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from indexrelay.health.facts import Facts
from indexrelay.rebuilder.builds import BuildCancelledError, BuildError
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.schemas.versions import root_collections

_log = get_logger(__name__)

PROCESS_BYTES: Final = 64 * 1024 * 1024
"""Of a process that builds nothing yet."""
_VALUE_BYTES: Final = 4
"""Of a float32."""


class TooLargeBuildError(BuildError):
    """Raised when a build would take more memory than all builds together may."""

    def __init__(self, needed: int, limit: int) -> None:
        super().__init__(
            f"its build would take about {needed:,} bytes of memory, and all builds together may "
            f"take {limit:,}: raise rebuilder.max_memory_bytes, or let it make less"
        )
        self.needed = needed
        self.limit = limit


class MemoryBudget:
    """What the builds of this process may take together; safe to use from several threads."""

    def __init__(self, limit: int | None) -> None:
        """``limit``: in bytes; ``None``: any number."""
        self.limit = limit
        self._taken = 0
        self._closed = False
        self._changed = threading.Condition()

    @property
    def taken(self) -> int:
        """The estimates of the builds that run, added up."""
        return self._taken

    @contextmanager
    def reserved(self, needed: int) -> Iterator[None]:
        """Wait until ``needed`` bytes are free, and keep them for the length of the ``with``.

        Raises:
            TooLargeBuildError: they are never free.
            BuildCancelledError: it was closed meanwhile.
        """
        limit = self.limit
        if limit is None:
            yield
            return
        if needed > limit:
            raise TooLargeBuildError(needed, limit)
        with self._changed:
            if self._taken + needed > limit:
                _log.info("build.waits_for_memory", needed=needed, taken=self._taken, limit=limit)
            self._changed.wait_for(lambda: self._closed or self._taken + needed <= limit)
            if self._closed:
                raise BuildCancelledError("the rebuilder stops")
            self._taken += needed
        try:
            yield
        finally:
            with self._changed:
                self._taken -= needed
                self._changed.notify_all()

    def close(self) -> None:
        """Let nothing more begin, and end every wait; safe twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def estimated_memory(name: str, facts: Facts, limits: RebuilderSettings) -> int:
    """What the build of ``name`` takes at most, in bytes, as far as facts show it.

    Of tables and folders only what the last version had is known before they are read.
    """
    entries = sum(
        stored.count * stored.dimension * _VALUE_BYTES
        for root in root_collections(name, facts.definitions)
        if (stored := facts.stored.get(root)) is not None
    )
    version = facts.versions.get(name)
    made = max(entries, 0 if version is None else version.size)
    definition = facts.definitions[name]
    beside = definition.build_memory_bytes or limits.build_memory_bytes or entries
    return PROCESS_BYTES + beside + made
