"""What the user's function is handed for an input that is a collection.

A snapshot speaks in chunks of columns, since that is fast; a function that makes a document mostly
wants one entry after the other, with its payload already parsed. This offers both over one
snapshot, and keeps nothing in memory but the chunk at hand.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import CHUNK_ROWS, Entries, SourceSnapshot, Vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry, ready to use."""

    id: str
    vector: Vectors
    """Shape ``(dimension,)``, float32; a row of its chunk: copy it to keep it."""
    text: str | None
    payload: Any
    """The parsed JSON value, or ``None``."""


class CollectionReader:
    """A collection at one generation; iterating gives every `Entry` once, ordered by id.

    Valid while the function runs, on its thread.
    """

    def __init__(self, snapshot: SourceSnapshot) -> None:
        self._snapshot = snapshot

    @property
    def name(self) -> str:
        """The collection's name."""
        return self._snapshot.collection

    @property
    def generation(self) -> int:
        """The generation that everything read from here belongs to."""
        return self._snapshot.generation

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return self._snapshot.dimension

    @property
    def metric(self) -> Metric:
        """How near two of its vectors are."""
        return self._snapshot.metric

    @property
    def count(self) -> int:
        """How many entries there are."""
        return self._snapshot.count

    def __len__(self) -> int:
        return self.count

    def __bool__(self) -> bool:
        """Refuse: "is it there?" and "is there anything in it?" are different questions."""
        raise TypeError(f"ask for {self.name}.count > 0 instead of the truth of a collection")

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Entries]:
        """Every entry once, at most ``rows`` at a time, column by column."""
        return self._snapshot.chunks(rows)

    def __iter__(self) -> Iterator[Entry]:
        for chunk in self.chunks():
            for row, entry_id in enumerate(chunk.ids):
                payload = chunk.payloads[row]
                yield Entry(
                    id=entry_id,
                    vector=chunk.vectors[row],
                    text=chunk.texts[row],
                    payload=None if payload is None else json.loads(payload),
                )
