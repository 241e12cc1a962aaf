"""A full build as the rebuilder runs it: from a catalog in SQLite to a version in a new store."""

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from pydantic import SecretStr

from indexrelay.rebuilder.builds import BuildRequest
from indexrelay.rebuilder.builds.job import Snapshots, build_component
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import BuildOutcome, ComponentResult
from indexrelay.schemas.settings import CollectionSettings, ComponentDefinition, Metric
from indexrelay.schemas.urls import sqlite_url
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import Vectors
from measuring.arrays import COLLECTION, ArrayCollection

_METRIC = Metric.L2
_BATCH = 100_000


@dataclass(frozen=True, kw_only=True)
class CatalogBuild:
    """Builds one component from a catalog in ``folder``, again and again."""

    folder: Path
    factory: str
    dimension: int

    def fill(self, vectors: Vectors) -> None:
        """Commit everything, in batches that do not hold all of it a second time."""
        with closing(Catalog.open(self._url)) as catalog:
            catalog.collections.declare(COLLECTION, dimension=self.dimension, metric=_METRIC)
            chunks = ArrayCollection(vectors=vectors, metric=_METRIC).chunks(_BATCH)
            for number, chunk in enumerate(chunks):
                catalog.entries.commit(COLLECTION, f"part-{number}", upserts=[chunk], deletes=())

    def build(self) -> ComponentResult:
        """Into a new store, with all gates."""
        store = self.folder / "artifacts"
        workdir = store / "work"
        rmtree(store, ignore_errors=True)
        artifacts = ArtifactStore(store)
        workdir.mkdir()
        with closing(Catalog.open(self._url)) as catalog, Snapshots(catalog) as snapshots:
            result = build_component(
                BuildRequest(
                    component="similar",
                    definition=ComponentDefinition.of(
                        "vector_index", COLLECTION, index=self.factory
                    ),
                    collections={
                        COLLECTION: CollectionSettings(dimension=self.dimension, metric=_METRIC)
                    },
                    parents={},
                    previous=None,
                    catalog_url=SecretStr(self._url),
                    artifacts_dir=store,
                    workdir=workdir,
                    threads=cores(),
                ),
                store=artifacts,
                clock=SystemClock(),
                progress=lambda _step, _share: None,
                snapshots=snapshots,
            )
        if result.outcome is not BuildOutcome.REBUILT:
            raise RuntimeError(f"it was not built: {result.error}")
        return result

    @property
    def _url(self) -> str:
        return sqlite_url(self.folder / "catalog.db")


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))
