"""A whole installation in one process: catalog, producer, rebuilder, store, reader, real server.

Builds run in child processes, as always. The rebuilder and the reader are stepped instead of left
to their loops, so that what is timed is work and no quiet wait: from the commit of a batch, over
event, build, gates, release and announcement, to the snapshot that serves it.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from indexrelay.producers import Producer
from indexrelay.rebuilder import Rebuilder
from indexrelay.reloaders import Reloader
from indexrelay.schemas.messages import RebuildResult, RebuildStatus
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import VersionManifest
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import Vectors
from indexrelay.streams import Connection
from measuring.arrays import COLLECTION, entry_id
from measuring.rounds import Say

COMPONENT = "similar"
_FILLED_AT_ONCE = 100_000
_BUILD_SECONDS = 1800.0


class Installation:
    """One collection, one vector index over it, and one reader that serves it."""

    def __init__(self, settings: Settings, url: str, vectors: Vectors, stack: ExitStack) -> None:
        self._vectors = vectors
        self._rng = np.random.default_rng(3)
        catalog = self.catalog = Catalog.open(settings.catalog_url)
        stack.callback(catalog.close)
        self.store = ArtifactStore(settings.artifacts_dir)
        connection = self.connection = Connection.open(url)
        stack.callback(connection.close)
        self._producer = Producer(settings, catalog=catalog, connection=connection)
        stack.callback(self._producer.close)
        self._rebuilder = Rebuilder(
            settings, catalog=catalog, store=self.store, connection=connection
        )
        stack.callback(self._rebuilder.stop)
        self._reader = Reloader(settings, reader_id="bench", store=self.store)
        stack.callback(self._reader.stop)
        self._stack = stack
        self.settings = settings
        self.folder = settings.data_dir
        """Of the catalog and the store."""
        self.name = settings.namespace

    @property
    def producer(self) -> Producer:
        """What commits to the collection."""
        return self._producer

    @property
    def reader(self) -> Reloader:
        """What serves it."""
        return self._reader

    def without_live_changes(self) -> Reloader:
        """Another reader, which serves releases alone."""
        collection = self.settings.collections[COLLECTION].model_copy(update={"live": False})
        settings = self.settings.model_copy(update={"collections": {COLLECTION: collection}})
        reader = Reloader(settings, reader_id="plain", store=self.store)
        self._stack.callback(reader.stop)
        reader.step()
        return reader

    def fill(self, say: Say, *, quick: bool = False) -> float:
        """Commit all vectors in one batch, and build the first version; when that was begun.

        Args:
            quick: as a rebuilder that runs does, which improves it later.
        """
        count = len(self._vectors)
        with self._producer.batch(COLLECTION) as batch:
            for start in range(0, count, _FILLED_AT_ONCE):
                say(f"handing over {start} of {count} entries")
                self._upsert(batch, np.arange(start, min(start + _FILLED_AT_ONCE, count)))
        say(f"building the first version of {count}")
        began = time.perf_counter()
        self._serve(quick=quick)
        return began

    def change(self, count: int, *, quick: bool = False) -> float:
        """Move ``count`` entries; seconds from the commit until they are served.

        Args:
            quick: as in `fill`.
        """
        rows = np.sort(self._rng.choice(len(self._vectors), size=count, replace=False))
        noise = self._rng.normal(scale=0.1, size=(count, self._vectors.shape[1]))
        self._vectors[rows] += noise.astype(np.float32)
        batch = self._producer.batch(COLLECTION)
        batch.__enter__()
        self._upsert(batch, rows)
        began = time.perf_counter()
        batch.__exit__(None, None, None)
        self._serve(quick=quick)
        return time.perf_counter() - began

    def improve(self) -> None:
        """Build a better version behind the one that serves; from a thread, beside `change`."""
        if not self._rebuilder.improve():
            raise RuntimeError("nothing was improved")

    def ask(self, queries: Vectors) -> list[float]:
        """Seconds of each query, ids and payloads included."""
        seconds = []
        with self._reader.acquire() as snapshot:
            served: Any = snapshot[COMPONENT]
            for query in queries:
                began = time.perf_counter()
                served.search(query)
                seconds.append(time.perf_counter() - began)
        return seconds

    def rebuild(self) -> float:
        """Build everything anew, with all gates; seconds until it is served."""
        self._producer.request_rebuild([COMPONENT], full=True, reason="benchmark")
        began = time.perf_counter()
        self._serve()
        return time.perf_counter() - began

    @property
    def served(self) -> VersionManifest:
        """The version that the reader serves."""
        with self._reader.acquire() as snapshot:
            return snapshot.manifest(COMPONENT)

    def _serve(self, *, quick: bool = False) -> None:
        result = self._rebuilder.step(quick=quick)
        if result is None or result.status is not RebuildStatus.SUCCESS:
            raise RuntimeError(f"not rebuilt: {_told(result)}")
        if not self._reader.step():
            raise RuntimeError("the reader does not serve what was released")

    def _upsert(self, batch: Any, rows: "np.ndarray[Any, np.dtype[np.int64]]") -> None:
        numbers = rows.tolist()
        batch.upsert(
            [entry_id(row) for row in numbers],
            self._vectors[rows],
            payloads=[{"title": f"Track {row}", "year": 1950 + row % 75} for row in numbers],
        )


def _told(result: RebuildResult | None) -> str:
    if result is None:
        return "nothing was due"
    errors = [each.error for each in result.components.values() if each.error]
    return f"{result.message} {errors}"


def settings_in(
    folder: Path, url: str, dimension: int, *, name: str, index: str, live: bool = False
) -> Settings:
    """What all of one installation runs with."""
    return Settings.model_validate(
        {
            "namespace": name,
            "data_dir": folder,
            "redis": {"url": url},
            "producer": {"max_backlog": None},
            "rebuilder": {"build_timeout_seconds": _BUILD_SECONDS, "build_memory_bytes": 8e9},
            "live": {"keys": ["benchmark" * 4] if live else [], "max_entries": 1_000_000},
            "collections": {COLLECTION: {"dimension": dimension, "metric": "l2", "live": live}},
            "components": {
                COMPONENT: {"kind": "vector_index", "from": [COLLECTION], "index": index}
            },
        }
    )


@contextmanager
def installed(
    url: str, vectors: Vectors, *, name: str, index: str, live: bool = False
) -> Iterator[Installation]:
    """An installation over a copy of ``vectors``, with nothing committed yet."""
    with tempfile.TemporaryDirectory(prefix="ir-") as folder, ExitStack() as stack:
        settings = settings_in(
            Path(folder), url, vectors.shape[1], name=name, index=index, live=live
        )
        yield Installation(settings, url, vectors.copy(), stack)
