"""A reader that lives on a backend: releases are announced there, and it reports there.

The reader runs on its own thread, and its clock stands still unless a test moves it, so that no
timer helps: what it does, it does because a message reached it. What it made of a release is read
where everybody reads it, in the stream of its reports.
"""

from collections.abc import Iterable
from pathlib import Path

from indexrelay.reloaders import Reloader
from indexrelay.reloaders.snapshot import SwapCallback
from indexrelay.schemas.messages import Event, ReleaseApplied, ReleasePublished
from indexrelay.schemas.versions import Release
from indexrelay.streams import announce
from tests.contracts.backends import Backend
from tests.reloaders.bench import Bench, make_settings
from tests.reloaders.kinds import ServedWords
from tests.storage.artifacts.samples import MOMENT
from tests.streams.polling import eventually

SECONDS = 30
"""Longer than anything takes on a machine that does much else."""


class Serving:
    """One store and one reader of it, joined by a backend."""

    def __init__(self, folder: Path, backend: Backend) -> None:
        self.backend = backend
        self.bench = Bench(folder)
        self.bench.settings = make_settings(folder, start_spread_seconds=0.0, block_seconds=0.05)
        self._announcing = backend.connect()
        self._reports = backend.subscriber("test", key=backend.keys.reports("a"), group="test")
        self._unread: list[ReleaseApplied] = []

    def reader(
        self, *, before_swap: Iterable[SwapCallback] = (), after_swap: Iterable[SwapCallback] = ()
    ) -> Reloader:
        """Make the reader; it is stopped with the test."""
        return self.bench.reader(
            connection=self.backend.connect(), before_swap=before_swap, after_swap=after_swap
        )

    def start(
        self, *, before_swap: Iterable[SwapCallback] = (), after_swap: Iterable[SwapCallback] = ()
    ) -> Reloader:
        """Make the reader, and start it."""
        reader = self.reader(before_swap=before_swap, after_swap=after_swap)
        reader.start()
        return reader

    def announce(self, release: Release) -> Release:
        """Tell the reader of a release that is in the store."""
        said = ReleasePublished(
            release=release.number, digest=release.digest, components=release.components
        )
        event = Event.of(said, source="/contracts", time=MOMENT)
        announce(
            self._announcing,
            self.backend.keys,
            number=release.number,
            release_event=event.to_bytes(),
            result_event=None,
        )
        return release

    def release(self, *, groups: dict[str, str] | None = None, **texts: str) -> Release:
        """Release new versions with these texts, and announce it."""
        return self.announce(self.bench.publish(groups=groups, **texts))

    def drop(self, name: str) -> Release:
        """Release everything but one component, and announce it."""
        return self.announce(self.bench.drop(name))

    def report(self, release: Release) -> ReleaseApplied:
        """Wait for the reader's next report of this release."""
        found: list[ReleaseApplied] = []

        def reported() -> bool:
            for raw in self._reports.drain():
                said = Event.from_bytes(raw).data
                assert isinstance(said, ReleaseApplied)
                self._unread.append(said)
            while self._unread and not found:
                said = self._unread.pop(0)
                if said.release == release.number:
                    found.append(said)
            return bool(found)

        eventually(reported, seconds=SECONDS)
        return found[0]

    def outcomes(self, release: Release) -> dict[str, str]:
        """What came of each component, by the reader's next report of this release."""
        components = self.report(release).components
        return {name: state.outcome.value for name, state in components.items()}


def served_words(reader: Reloader, name: str = "voyager") -> ServedWords:
    """The object that is served now; not borrowed, so that it may be closed at any time."""
    with reader.acquire() as snapshot:
        served: ServedWords = snapshot[name]
        return served
