"""What a batch changes in an index, read from the source: only what differs from the last version.

A job that hands over everything each time gives most entries again as they are. These are no
changes: they neither grow the delta nor cost the next build anything.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from indexrelay.components.inputs import refuse_infinite
from indexrelay.components.succession import ChangedIds
from indexrelay.components.vector_index.contents import Contents
from indexrelay.components.vector_index.reading import indexable
from indexrelay.storage.entries import Changes, Vectors


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What differs from the last version."""

    ids: ChangedIds
    vectors: Vectors
    """Of the upserts, shape ``(n, dimension)``, as they are indexed."""
    payloads: list[str | None]
    """Of the upserts."""

    @property
    def empty(self) -> bool:
        """Whether nothing differs."""
        return not self.ids.upserts and not self.ids.deletes


def read_batch(changes: Iterable[Changes], last: Contents, *, most: int) -> Batch | None:
    """Read what changed since ``last``; ``None`` once that is more than ``most`` entries.

    Raises:
        UnusableInputError: a vector cannot be indexed.
    """
    upserts: list[str] = []
    deletes: list[str] = []
    payloads: list[str | None] = []
    vectors = [np.empty((0, last.facts.dimension), dtype=np.float32)]
    for chunk in changes:
        refuse_infinite(chunk.upserts)
        given = indexable(chunk.upserts, last.facts.metric)
        rows = [
            row
            for row, entry_id in enumerate(chunk.upserts.ids)
            if not _same(last, entry_id, given[row], chunk.upserts.payloads[row])
        ]
        upserts += (chunk.upserts.ids[row] for row in rows)
        payloads += (chunk.upserts.payloads[row] for row in rows)
        vectors.append(given[rows])
        deletes += (entry_id for entry_id in chunk.deletes if entry_id in last.ids)
        if len(upserts) + len(deletes) > most:
            return None
    return Batch(
        ids=ChangedIds(upserts=upserts, deletes=deletes),
        vectors=np.concatenate(vectors),
        payloads=payloads,
    )


def _same(last: Contents, entry_id: str, vector: Vectors, payload: str | None) -> bool:
    """Whether the last version holds this entry as it is given, bit for bit."""
    row = last.find(entry_id)
    return (
        row is not None
        and last.vector(row).tobytes() == vector.tobytes()
        and last.payload_texts_of(np.array([row]))[0] == payload
    )
