"""Checks whether the files of what is served are still what they were when they were loaded.

A mapped file answers with whatever is in it now. So, beside the reloading thread, a thread of its
own checks the files of the served snapshot, in two ways:

- Every ``poll_seconds``, without reading them: is it the same file, and is it marked as checked in
  the state in which it is now? Blobs are never written to, so one that was is hashed at once. (The
  release file is read at every look for a newer one anyway.)
- Every ``scrub_interval_seconds`` it hashes every byte, slowly, against what changes without a
  trace: a disk that rots. One reader of each host does it, since the marks show to all when a blob
  was hashed last. A reader that finds corruption removes the mark, and the others hash it, too.

It reads by way of the page cache, which is what a map shows, and never maps: a file that has become
too short is found corrupt here and ends no process.

Each finding is a `Corruption`, handed to the reloading thread; nothing is changed from here.
"""

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from indexrelay.reloaders.retry import error_text
from indexrelay.reloaders.snapshot import Contents, ServedComponent
from indexrelay.schemas.clock import Clock, SupervisedThread
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import ReaderSettings
from indexrelay.schemas.versions import BlobRef
from indexrelay.storage.artifacts import (
    ArtifactStore,
    BlobCorruptError,
    BlobMissingError,
    StoreAccessError,
    VersionUnreadableError,
)

log = get_logger(__name__)

_OVERDUE_INTERVALS: Final = 2
"""After so many intervals a blob is hashed even where another process holds the scrub's lock."""
Wait = Callable[[float], bool]
"""Wait so many seconds; at once ``True`` when it is time to stop."""


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """A served object whose files are not as they were when it was loaded."""

    served: ServedComponent
    reason: str
    wrong: bool
    """Whether it may answer wrongly, since the very file that it was loaded from is corrupt.

    Otherwise that file has lost its name (removed, replaced, or its manifest is gone): it answers
    as before, and may not be there for the next reader that starts."""


class Scrubber:
    """Scrubs for one reader; `run` and what it calls belong to one thread."""

    def __init__(
        self,
        store: ArtifactStore,
        settings: ReaderSettings,
        *,
        contents: Callable[[], Contents],
        report: Callable[[Corruption], None],
        wait: Wait,
        clock: Clock,
        recover: Callable[[], None] | None = None,
    ) -> None:
        """Check what ``contents()`` gives, and ``report`` corruption: once at every look.

        ``recover`` is called after each look; see `indexrelay.reloaders.recovery`.
        """
        self._store = store
        self._poll_seconds = settings.poll_seconds
        self._interval_seconds = settings.scrub_interval_seconds
        self._bytes_per_second = settings.scrub_bytes_per_second
        self._contents = contents
        self._report = report
        self._wait = wait
        self._clock = clock
        self._recover = recover
        self._logged_error = ""
        self._overdue = False
        self._next_look = 0.0

    def start(self) -> threading.Thread:
        """Run in a thread of its own; the caller joins it after ``wait`` has returned ``True``."""
        thread = SupervisedThread(self.run, name="indexrelay-scrub", wait=self._wait)
        thread.start()
        return thread

    def run(self) -> None:
        """Look and scrub until it is time to stop."""
        while not self._wait(self._poll_seconds):
            self.look()
            self.scrub()

    def look(self) -> None:
        """Check everything that is served without reading it; hash what was touched."""
        self._next_look = self._clock.monotonic() + self._poll_seconds
        for served in self._contents().components.values():
            try:
                self._store.version(served.name, served.version)
            except VersionUnreadableError as error:
                self._report(Corruption(served=served, reason=error_text(error), wrong=False))
            except StoreAccessError as error:
                self._log_error(error)
            for ref in served.manifest.files.values():
                self._look_at(served, ref)
        if self._recover is not None:
            self._recover()

    def scrub(self) -> None:
        """Hash what this host has not hashed for an interval, unless another reader does.

        Whoever holds the scrub's lock may do nothing with it, so that what was not hashed for two
        intervals is hashed anyhow.
        """
        with self._store.scrubbing() as alone:
            due = self._due(intervals=1 if alone else _OVERDUE_INTERVALS)
            if due and not alone and not self._overdue:
                log.warning(
                    "scrub.overdue",
                    files=len(due),
                    advice="another process holds the lock of the scrub in `checked` of the "
                    "artifacts, and does not scrub: see what it does",
                )
            self._overdue = bool(due) and not alone
            for reference, ref in due:
                try:
                    if not self._store.recheck_blob(ref, go_on=self._pace):
                        return
                except (BlobCorruptError, BlobMissingError) as error:
                    served = reference()
                    if served is not None:
                        wrong = isinstance(error, BlobCorruptError) and self._is_same(served, ref)
                        self._report(
                            Corruption(served=served, reason=error_text(error), wrong=wrong)
                        )
                except StoreAccessError as error:
                    self._log_error(error)

    def _look_at(self, served: ServedComponent, ref: BlobRef) -> None:
        try:
            found = self._store.look_at_blob(ref)
            if found is None:
                reason = f"blob {ref.digest} was removed"
            elif found.inode != served.inodes.get(ref.digest):
                reason = f"the file of blob {ref.digest} was replaced"
            else:
                if found.checked_at is None:
                    self._store.recheck_blob(ref, go_on=lambda _: not self._wait(0))
                return
        except BlobCorruptError as error:
            self._report(Corruption(served=served, reason=error_text(error), wrong=True))
        except StoreAccessError as error:
            self._log_error(error)
        except BlobMissingError as error:
            self._report(Corruption(served=served, reason=error_text(error), wrong=False))
        else:
            self._report(Corruption(served=served, reason=reason, wrong=False))

    def _due(self, *, intervals: int) -> list[tuple["weakref.ref[ServedComponent]", BlobRef]]:
        """What was not hashed for so many intervals, longest ago first.

        Only weak references are kept: a scrub takes hours, and must not hold open what was swapped.
        """
        if self._interval_seconds is None:
            return []
        now = self._clock.now().timestamp()
        due: dict[str, tuple[float, weakref.ref[ServedComponent], BlobRef]] = {}
        for served in self._contents().components.values():
            for ref in served.manifest.files.values():
                try:
                    found = self._store.look_at_blob(ref)
                except StoreAccessError:
                    continue  # the next look says so
                if found is None or found.checked_at is None:
                    continue
                # A mark from the future, by a clock that was wrong, counts as old.
                if abs(now - found.checked_at) >= intervals * self._interval_seconds:
                    due[ref.digest] = (found.checked_at, weakref.ref(served), ref)
        ordered = sorted(due.values(), key=lambda each: each[0])
        return [(reference, ref) for _, reference, ref in ordered]

    def _is_same(self, served: ServedComponent, ref: BlobRef) -> bool:
        found = self._store.look_at_blob(ref)
        return found is not None and found.inode == served.inodes.get(ref.digest)

    def _pace(self, count: int) -> bool:
        """Take as long over ``count`` bytes as the settings ask for; look up now and then."""
        if self._wait(count / self._bytes_per_second):
            return False
        if self._clock.monotonic() >= self._next_look:
            self.look()
        return True

    def _log_error(self, error: Exception) -> None:
        """Log what prevents a look once, not at every look."""
        if str(error) != self._logged_error:
            self._logged_error = str(error)
            log.warning("scrub.unreadable", error=self._logged_error)
