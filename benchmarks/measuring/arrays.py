"""A collection in memory, in the form in which a build reads any collection.

A database would take longer to fill than the index takes to build, and is not what is asked about
here. Ids are strings in the order of their bytes; every entry has a payload like a track's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import CHUNK_ROWS, Changes, Entries, Vectors

COLLECTION = "tracks"


@dataclass(frozen=True, kw_only=True)
class ArrayCollection:
    """A `SourceSnapshot` over one array, at one generation."""

    vectors: Vectors
    """Shape ``(count, dimension)``."""
    metric: Metric = Metric.L2
    collection: str = COLLECTION
    epoch: str = "benchmark"
    generation: int = 1
    changed: tuple[tuple[int, int], ...] = field(default=())
    """Each row that changed after generation 1, and the generation of its last change."""

    @property
    def count(self) -> int:
        """How many entries there are."""
        return len(self.vectors)

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return int(self.vectors.shape[1])

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Entries]:
        """Every entry."""
        for start in range(0, self.count, rows):
            yield self._entries(np.arange(start, min(start + rows, self.count)))

    @property
    def left_out(self) -> Mapping[str, int]:
        return {}

    def changes(self, after: int, rows: int = CHUNK_ROWS) -> Iterator[Changes] | None:
        """The entries that were changed by `with_changes` since."""
        places = np.array(
            [row for row, generation in self.changed if generation > after], dtype=np.int64
        )
        return (
            Changes(upserts=self._entries(places[start : start + rows]), deletes=[])
            for start in range(0, len(places), rows)
        )

    def with_changes(self, count: int, *, seed: int) -> "ArrayCollection":
        """The same one generation later, with ``count`` vectors moved."""
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.choice(self.count, size=count, replace=False))
        vectors = self.vectors.copy()
        vectors[rows] += rng.normal(scale=0.1, size=(count, self.dimension)).astype(np.float32)
        generation = self.generation + 1
        touched = {**dict(self.changed), **dict.fromkeys(rows.tolist(), generation)}
        return replace(
            self, vectors=vectors, generation=generation, changed=tuple(sorted(touched.items()))
        )

    def _entries(self, places: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Entries:
        rows = places.tolist()
        return Entries(
            ids=[entry_id(row) for row in rows],
            vectors=np.ascontiguousarray(self.vectors[places]),
            texts=[None] * len(rows),
            payloads=[f'{{"title":"Track {row}","year":{1950 + row % 75}}}' for row in rows],
        )


def entry_id(row: int) -> str:
    """The id of one row."""
    return f"track-{row:08d}"


def drawn(count: int, dimension: int = 128, *, seed: int = 7, clusters: int = 2_000) -> Vectors:
    """Vectors in Gaussian clusters, float32, of the shape ``(count, dimension)``."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, dimension), dtype=np.float32)
    vectors *= 0.35
    centres = rng.standard_normal((clusters, dimension), dtype=np.float32)
    vectors += centres[rng.integers(clusters, size=count)]
    return vectors
