"""A store, settings that allow the tests' own kind, and readers on them."""

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from indexrelay.reloaders import Reloader, Snapshot
from indexrelay.schemas.messages import ComponentState
from indexrelay.schemas.settings import ComponentDefinition, Settings
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.streams import Connection
from tests.reloaders.kinds import WORDS
from tests.storage.artifacts.samples import MOMENT, MovedClock, make_version

NAMES = ("clap", "map", "voyager")


def make_settings(folder: Path, *, names: Iterable[str] = NAMES, **reader: Any) -> Settings:
    """Settings that declare components of the tests' kind; ``reader`` is the table of that name."""
    return Settings.model_validate(
        {
            "namespace": "test",
            "data_dir": folder,
            "reader": reader,
            "components": {
                name: ComponentDefinition.of(WORDS, "tracks", required=name == "voyager")
                for name in names
            },
        }
    )


class Bench:
    """Publishes releases, and makes readers that follow them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = MovedClock()
        self.settings = make_settings(folder)
        self.store = ArtifactStore(self.settings.artifacts_dir, clock=self.clock)
        self.components: dict[str, str] = {}
        self._generation = 0
        self._readers: list[Reloader] = []

    def publish(
        self, *, groups: dict[str, str] | None = None, kind: str = WORDS, **texts: str
    ) -> Release:
        """Release new versions with these texts, beside what was released before."""
        return self.publish_texts(texts, groups=groups, kind=kind)

    def publish_texts(
        self, texts: dict[str, str], *, groups: dict[str, str] | None = None, kind: str = WORDS
    ) -> Release:
        """`publish`, for names that are not known beforehand."""
        self._generation += 1
        for name, text in texts.items():
            self.components[name] = make_version(
                self.store, name, text.encode(), generation=self._generation, kind=kind
            )
        return self.release(groups=groups)

    def drop(self, name: str, *, groups: dict[str, str] | None = None) -> Release:
        """Release everything but one component."""
        del self.components[name]
        return self.release(groups=groups)

    def release(self, *, groups: dict[str, str] | None = None) -> Release:
        newest = self.store.newest_release()
        return self.store.commit_release(
            Release(
                number=self.store.next_number(),
                components=self.components,
                groups=groups or {},
                created_at=MOMENT,
                reason="a test",
                previous=newest.number if newest else 0,
            )
        )

    def reader(
        self,
        reader_id: str = "a",
        *,
        connection: Connection | None = None,
        **callbacks: Iterable[Callable[..., object]],
    ) -> Reloader:
        reader = Reloader(
            self.settings,
            reader_id=reader_id,
            store=self.store,
            connection=connection,
            clock=self.clock,
            before_swap=callbacks.get("before_swap", ()),
            after_swap=callbacks.get("after_swap", ()),
        )
        self._readers.append(reader)
        return reader

    def stop_readers(self) -> None:
        """Stop every reader that was made here."""
        for reader in self._readers:
            reader.stop()


def texts(reader: Reloader) -> dict[str, str]:
    """What a reader serves."""
    with reader.acquire() as snapshot:
        return {name: served.read() for name, served in snapshot.items()}


def outcomes(reader: Reloader) -> dict[str, str]:
    """What came of each component."""
    return {name: state.outcome.value for name, state in reader.state.components.items()}


def state_of(reader: Reloader, name: str) -> ComponentState:
    return reader.state.components[name]


class Swaps:
    """Waits for a reader to swap to a release."""

    def __init__(self) -> None:
        self._newest = 0
        self._swapped = threading.Condition()

    def __call__(self, _old: Snapshot, new: Snapshot) -> None:
        with self._swapped:
            self._newest = new.release
            self._swapped.notify_all()

    def wait_for(self, release: int) -> None:
        with self._swapped:
            assert self._swapped.wait_for(lambda: self._newest >= release, timeout=30)
