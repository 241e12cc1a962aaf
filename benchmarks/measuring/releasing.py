"""Versions in a real artifact store, and releases of them as a rebuilder publishes them.

A version is built by its kind and put into the store as the rebuilder does it, but for the gates:
they decide whether something is released, and not what it is.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from indexrelay.components.kind import Goal, Job, PreviousVersion
from indexrelay.components.registry import kind_of
from indexrelay.components.vector_index.spec import Effort, IndexFacts
from indexrelay.components.vector_index.version import FACTS
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.settings import ComponentDefinition, Settings
from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.streams import Connection, Keys
from measuring.arrays import COLLECTION, ArrayCollection
from measuring.servers import BenchServer

COMPONENT = "voyager"
NAMESPACE = "bench"


@dataclass(frozen=True, kw_only=True)
class StoredVersion:
    """A version that can be released."""

    id: str
    manifest: VersionManifest


def reader_settings(folder: Path, url: str) -> Settings:
    """What a reader of these releases runs with.

    It looks when it is told to and hardly ever by itself, or a look of its own might come before
    the message that is measured. A blocking read is short, since what was served before is closed
    when it ends, and a program waits for that.
    """
    return Settings.model_validate(
        {
            "namespace": NAMESPACE,
            "data_dir": folder,
            "redis": {"url": url},
            "reader": {
                "poll_seconds": 600.0,
                "block_seconds": 0.1,
                "start_spread_seconds": 0.0,
            },
        }
    )


class Publisher:
    """Builds versions and releases them; one thread at a time."""

    def __init__(self, folder: Path, url: str) -> None:
        # Not above: companions take the settings from here, and a reader imports no rebuilder.
        from indexrelay.rebuilder.publisher import Announcer

        self._clock = SystemClock()
        self._store = ArtifactStore(reader_settings(folder, url).artifacts_dir)
        self._connection = Connection.open(url)
        self._announcer = Announcer(
            self._connection, Keys(NAMESPACE), source="/benchmarks", clock=self._clock
        )

    def build(
        self,
        source: ArrayCollection,
        *,
        previous: StoredVersion | None = None,
        goal: Goal = Goal.BEST,
        threads: int | None = None,
        gates: bool = False,
        **parameters: Any,
    ) -> StoredVersion:
        """Build a vector index over ``source``, continuing ``previous`` where there is one.

        Args:
            source: what it is made from.
            previous: the version to continue.
            goal: as a rebuilder gives it.
            threads: of the build; ``None``: as many as this process may use.
            gates: also judge what was built, and raise where a gate fails.
            **parameters: of the index.
        """
        definition = ComponentDefinition.of("vector_index", COLLECTION, **parameters)
        kind = kind_of(definition)
        continued = None
        if previous is not None:
            opened = self._store.open_version(COMPONENT, previous.id)
            continued = PreviousVersion(manifest=opened.manifest, files=opened.files)
        with tempfile.TemporaryDirectory(dir=self._store.staging) as workdir:
            job = Job(
                component=COMPONENT,
                collections={COLLECTION: source},
                components={},
                previous=continued,
                workdir=Path(workdir),
                threads=len(os.sched_getaffinity(0)) if threads is None else threads,
                progress=lambda _share: None,
                goal=goal,
            )
            built = kind.build(job)
            if built.extends != (previous is not None):
                raise RuntimeError(f"not built as it was meant to be: {built.details['build']}")
            blobs = {
                name: self._store.put_blob(file) if isinstance(file, Path) else file
                for name, file in built.files.items()
            }
            stored = {name: self._store.blob(blob) for name, blob in blobs.items()}
            checks = [*kind.verify(job, replace(built, files=blobs), stored)] if gates else []
            failed = [check.name for check in checks if not check.passed]
            if failed:
                raise RuntimeError(f"gates failed: {', '.join(failed)}")
            for label in (kind.sandboxed & blobs.keys()) if gates else ():
                self._store.remember_opened(blobs[label])  # as a rebuilder does
            manifest = VersionManifest(
                component=COMPONENT,
                kind=definition.kind,
                definition=definition.digest,
                parameters=definition.parameters,
                covers={COLLECTION: source.generation},
                epochs={COLLECTION: source.epoch},
                files=blobs,
                entries=built.entries,
                checks=tuple(checks),
                details=built.details,
                created_at=self._clock.now(),
            )
        return StoredVersion(id=self._store.put_version(manifest), manifest=manifest)

    def with_effort(self, version: StoredVersion, effort: Effort) -> StoredVersion:
        """The same version, searched with another effort."""
        facts = IndexFacts.load(self.path(version, FACTS))
        with tempfile.TemporaryDirectory(dir=self._store.staging) as folder:
            file = Path(folder) / FACTS
            facts.model_copy(update={"effort": effort}).save(file)
            files = {**version.manifest.files, FACTS: self._store.put_blob(file)}
        manifest = version.manifest.model_copy(update={"files": files})
        return StoredVersion(id=self._store.put_version(manifest), manifest=manifest)

    def stored(self, version: str) -> StoredVersion:
        """A version of this store, by its id."""
        return StoredVersion(id=version, manifest=self._store.version(COMPONENT, version))

    def path(self, version: StoredVersion, name: str) -> Path:
        """Where one of its files lies."""
        return self._store.blob(version.manifest.files[name])

    def commit(self, version: StoredVersion) -> Release:
        """Release it; nobody is told yet."""
        newest = self._store.newest_release()
        components: Mapping[str, str] = {COMPONENT: version.id}
        return self._store.commit_release(
            Release(
                number=self._store.next_number(),
                components=dict(components),
                created_at=self._clock.now(),
                reason="a benchmark",
                previous=newest.number if newest else 0,
            )
        )

    def newest(self) -> int:
        """The number of the newest release."""
        newest = self._store.newest_release()
        return newest.number if newest else 0

    def announce(self, release: Release) -> None:
        """Tell every reader."""
        self._announcer.announce(release, None)

    def close(self) -> None:
        """Let go of the server."""
        self._connection.close()


@contextmanager
def publishing(server: BenchServer) -> Iterator[tuple[Publisher, Path]]:
    """A publisher with a store of its own, and the data folder that readers are told."""
    with tempfile.TemporaryDirectory(prefix="ir-") as name:
        folder = Path(name)
        publisher = Publisher(folder, server.url)
        try:
            yield publisher, folder
        finally:
            publisher.close()
