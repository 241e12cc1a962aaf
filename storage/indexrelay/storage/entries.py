"""Rows on their way: what a job hands over and what a build reads, a chunk at a time."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexrelay.schemas.settings import Metric

Vectors = NDArray[np.float32]
CHUNK_ROWS = 10_000
"""Rows read at a time: bounded memory (10 MB at 256 dimensions), and far beyond per-call cost."""


@dataclass(frozen=True, kw_only=True)
class Entries:
    """A chunk of entries, column by column; all columns have the same length ``n``."""

    ids: list[str]
    vectors: Vectors
    """Shape ``(n, dimension)``, float32, C-contiguous."""
    texts: list[str | None]
    payloads: list[str | None]
    """Each a JSON value as text, or ``None``."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """A chunk of what changed: entries that came or changed, and ids that went."""

    upserts: Entries
    deletes: list[str]


class SourceSnapshot(Protocol):
    """A collection as it stood at one generation; everything read from it agrees.

    Valid inside the ``with`` that opened it, on the thread that opened it.
    """

    @property
    def collection(self) -> str:
        """Its name."""
        ...

    @property
    def epoch(self) -> str:
        """The life of the collection that ``generation`` counts in."""
        ...

    @property
    def generation(self) -> int:
        """Read inside the snapshot: what a build from it covers."""
        ...

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        ...

    @property
    def metric(self) -> Metric:
        """How near two of its vectors are."""
        ...

    @property
    def count(self) -> int:
        """How many live entries there are."""
        ...

    @property
    def left_out(self) -> Mapping[str, int]:
        """What the source holds and does not give, by its kind; see `CollectionSource.left_out`."""
        ...

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Entries]:
        """Every live entry once, in the order of the ids' UTF-8 bytes."""
        ...

    def changes(self, after: int, rows: int = CHUNK_ROWS) -> Iterator[Changes] | None:
        """What changed in (``after``, ``generation``]; each id at most once, with its last state.

        ``None`` when that cannot be known (another kind of source, or deletes older than the
        source remembers): the caller reads everything instead.
        """
        ...


class CollectionSource(Protocol):
    """Where one collection's entries are read from; safe to use from any thread."""

    def observe(self) -> int:
        """Look whether there is something new, number it in the catalog, say the generation."""
        ...

    def look(self) -> int | None:
        """Open it and look whether a build could read it; nothing is numbered or made.

        How many entries there are; ``None``: some, and they were not counted.

        Raises:
            SourceError: it cannot be read, or does not hold what it is declared to hold; the
                message names the file, the table or the column.
        """
        ...

    def left_out(self) -> Mapping[str, int]:
        """What is there now and is not read as entries, by its kind; empty: nothing.

        ``without_vector``: rows of a table that have none yet. ``subfolders``, ``other_files`` of a
        folder, and ``other_arrays`` in its files.

        Raises:
            SourceError: it cannot be looked at.
        """
        ...

    def snapshot(self) -> AbstractContextManager[SourceSnapshot]:
        """One consistent view.

        Raises:
            SourceError: it cannot be read, or does not hold what the collection declares; the
                message names the file or the rows.
        """
        ...
