"""Looks whether what is served is still what was checked when it was loaded.

A file that is mapped answers with whatever is in it now. So, beside the reloading thread, a thread
of its own looks at the files of the served snapshot, in two ways:

- Every ``poll_seconds`` at what can be seen without reading: is it the same file, and is it marked
  as checked in the state in which it is now? Blobs are never written to, so one that was is in
  doubt, and is hashed at once. (The release file is read at every look for a newer one anyway.)
- Every ``scrub_interval_seconds`` at every byte, slowly, against what changes without a trace: a
  disk that rots. One reader of each host does it, since the marks say to all when a blob was hashed
  last; whoever finds damage removes the mark, and the others see that and hash for themselves.

It reads by way of the page cache, which is what a map shows, and never maps: a file that has become
too short is found damaged here and kills nobody.

What it finds is a `Doubt`, told to the reloading thread; nothing is changed from here.
"""

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from indexrelay.reloaders.retry import in_words
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

_OVERDUE: Final = 2
"""Intervals after which nobody is waited for any more."""
Wait = Callable[[float], bool]
"""Wait so many seconds; at once ``True`` when it is time to stop."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """A served object whose files are not as they were when it was loaded."""

    served: ServedComponent
    reason: str
    wrong: bool
    """Whether it may answer wrongly, since the very file that it was loaded from is damaged.

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
        tell: Callable[[Doubt], None],
        wait: Wait,
        clock: Clock,
    ) -> None:
        """Look at ``contents()``, and ``tell`` what is wrong with it: once at every look."""
        self._store = store
        self._poll_seconds = settings.poll_seconds
        self._interval_seconds = settings.scrub_interval_seconds
        self._bytes_per_second = settings.scrub_bytes_per_second
        self._contents = contents
        self._tell = tell
        self._wait = wait
        self._clock = clock
        self._complaint = ""
        self._overdue = False
        self._next_look = 0.0

    def start(self) -> threading.Thread:
        """Run in a thread of its own; joined by whoever says that it is time to stop."""
        thread = SupervisedThread(self.run, name="indexrelay-scrub", wait=self._wait)
        thread.start()
        return thread

    def run(self) -> None:
        """Look and scrub until it is time to stop."""
        while not self._wait(self._poll_seconds):
            self.look()
            self.scrub()

    def look(self) -> None:
        """Look at everything that is served; hash what somebody has touched."""
        self._next_look = self._clock.monotonic() + self._poll_seconds
        for served in self._contents().components.values():
            try:
                self._store.version(served.name, served.version)
            except VersionUnreadableError as error:
                self._tell(Doubt(served=served, reason=in_words(error), wrong=False))
            except StoreAccessError as error:
                self._complain(error)
            for ref in served.manifest.files.values():
                self._look_at(served, ref)

    def scrub(self) -> None:
        """Hash what this host has not hashed for an interval, unless another reader is at it.

        Whoever says so may do nothing: what was not hashed for two intervals is hashed anyhow.
        """
        with self._store.scrubbing() as alone:
            due = self._due(intervals=1 if alone else _OVERDUE)
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
                        self._tell(Doubt(served=served, reason=in_words(error), wrong=wrong))
                except StoreAccessError as error:
                    self._complain(error)

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
            self._tell(Doubt(served=served, reason=in_words(error), wrong=True))
        except StoreAccessError as error:
            self._complain(error)
        except BlobMissingError as error:
            self._tell(Doubt(served=served, reason=in_words(error), wrong=False))
        else:
            self._tell(Doubt(served=served, reason=reason, wrong=False))

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

    def _complain(self, error: Exception) -> None:
        """Say what keeps us from looking once, not at every look."""
        if str(error) != self._complaint:
            self._complaint = str(error)
            log.warning("scrub.unreadable", error=self._complaint)
