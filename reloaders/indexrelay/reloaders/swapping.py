"""The one reference that is swapped.

A query reads the reference and holds what it read; a reload replaces the reference. Reading an
attribute is atomic, so there is no lock between them: a query that comes a moment earlier gets the
old contents, whole, and one that comes a moment later the new ones, whole.

What was swapped out closes with its last user, and that takes time: milliseconds for a few hundred
mapped megabytes. So that it is hardly ever a query that spends them, the reloading thread stays a
user until a moment later, when the queries that ran during the swap are over.
"""

from collections.abc import Callable, Iterable

from indexrelay.reloaders.errors import ReloaderStoppedError
from indexrelay.reloaders.snapshot import Contents, Snapshot
from indexrelay.schemas.loggers import get_logger

log = get_logger(__name__)

SwapCallback = Callable[[Snapshot, Snapshot], object]
"""Called with the old and the new snapshot, both valid until it returns."""


class Current:
    """Holds what is served now."""

    def __init__(
        self, *, before_swap: Iterable[SwapCallback] = (), after_swap: Iterable[SwapCallback] = ()
    ) -> None:
        """Take the callbacks, which run in this order on the reloading thread.

        Args:
            before_swap: the new snapshot is not visible yet; the time to warm a cache.
            after_swap: queries get the new snapshot; the time to drop what was kept of the old one.

        A callback that raises is logged and stops neither the swap nor the others: it cannot veto.
        """
        self._before = tuple(before_swap)
        self._after = tuple(after_swap)
        self._contents: Contents | None = Contents()
        self._leaving: Contents | None = None

    @property
    def contents(self) -> Contents:
        """What is served now; nothing once it was closed."""
        return self._contents or Contents()

    def acquire(self) -> Snapshot:
        """Borrow what is served now.

        Raises:
            ReloaderStoppedError: it was closed.
        """
        contents = self._contents
        if contents is None:
            raise ReloaderStoppedError
        return Snapshot(contents)

    def swap(self, contents: Contents) -> None:
        """Serve ``contents`` from now on; the old contents close with their last user.

        That is not before `let_go`, or the next swap.
        """
        old = self.contents
        self._call(self._before, old, contents, when="before")
        if self._contents is None:  # a callback stopped the reloader
            return
        self._leaving = old
        self._contents = contents
        self._call(self._after, old, contents, when="after")

    def let_go(self) -> None:
        """Use what was swapped out no longer."""
        self._leaving = None

    def open(self) -> None:
        """Serve again, nothing at first; what is served already stays."""
        if self._contents is None:
            self._contents = Contents()

    def close(self) -> None:
        """Serve nothing any more; running queries keep what they have borrowed. Safe twice."""
        self._contents = self._leaving = None

    def _call(
        self, callbacks: Iterable[SwapCallback], old: Contents, new: Contents, *, when: str
    ) -> None:
        for callback in callbacks:
            with Snapshot(old) as before, Snapshot(new) as after:
                try:
                    callback(before, after)
                except Exception:
                    name = getattr(callback, "__qualname__", repr(callback))
                    log.exception(
                        "swap.callback_failed", when=when, callback=name, release=new.release
                    )
