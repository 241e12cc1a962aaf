"""What changed on a map: the entries of each input that came, whose vector changed, or that went.

An entry that was handed over again with the same vector is no change. One that is in two inputs at
once cannot be shown; whoever meets that builds in full, where it is refused in so many words.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexrelay.components.layered_ids import LayeredIds
from indexrelay.components.mapped_array import mapped_array
from indexrelay.components.projection.fingerprints import (
    DELTA_FINGERPRINTS,
    FINGERPRINTS,
    Fingerprints,
    fingerprints,
)
from indexrelay.components.projection.reading import as_laid_out
from indexrelay.components.succession import ChangedIds, InputRows
from indexrelay.storage.entries import Changes, SourceSnapshot, Vectors


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What changed in all inputs."""

    changed: tuple[ChangedIds, ...]
    """For each input."""
    vectors: Vectors
    """Of all upserts, input after input, as they are laid out."""
    fingerprints: Fingerprints
    """Of the same."""

    @property
    def empty(self) -> bool:
        """Whether the map stays what it is."""
        return not any(one.upserts or one.deletes for one in self.changed)


@dataclass(frozen=True, kw_only=True)
class Held:
    """What the last map holds."""

    ids: LayeredIds
    base: Fingerprints
    delta: Fingerprints
    inputs: InputRows

    @classmethod
    def open(cls, ids: LayeredIds, files: Mapping[str, Path], details: Mapping[str, Any]) -> "Held":
        """That of a version with these files, details, and ids.

        Raises:
            DamagedFileError: a file is not what was written.
        """
        delta = np.empty(0, np.uint64)
        if DELTA_FINGERPRINTS in files:
            rows = len(ids.layers.places)
            delta = mapped_array(files[DELTA_FINGERPRINTS], (rows,), np.uint64)
        return cls(
            ids=ids,
            base=mapped_array(files[FINGERPRINTS], (ids.layers.base,), np.uint64),
            delta=delta,
            inputs=InputRows(
                base=tuple(details["inputs"]["base"]), delta=tuple(details["inputs"]["delta"])
            ),
        )

    def state(self, entry_id: str) -> tuple[int, int] | None:
        """The input that an entry is of, and its fingerprint; ``None``: it is not on the map."""
        found = self.ids.find(entry_id)
        if found is None:
            return None
        counts = self.inputs.delta if found.in_delta else self.inputs.base
        layer = self.delta if found.in_delta else self.base
        number = np.searchsorted(np.cumsum(counts), found.row, side="right")
        return int(number), int(layer[found.row])


def read_batch(
    held: Held,
    collections: Iterable[SourceSnapshot],
    changes: Mapping[str, Iterable[Changes]],
    *,
    most: int,
) -> Batch | None:
    """Read ``changes``; ``None`` once more than ``most`` entries are to be placed."""
    changed: list[ChangedIds] = []
    vectors: list[Vectors] = []
    prints: list[Fingerprints] = [np.empty(0, np.uint64)]
    placed = 0
    for number, source in enumerate(collections):
        vectors.append(np.empty((0, source.dimension), np.float32))
        upserts: list[str] = []
        deletes: list[str] = []
        for chunk in changes[source.collection]:
            given = as_laid_out(chunk.upserts.vectors, source.metric)
            new = fingerprints(given)
            states = zip(chunk.upserts.ids, new.tolist(), strict=True)
            rows = [
                row for row, (one, mark) in enumerate(states) if held.state(one) != (number, mark)
            ]
            upserts += (chunk.upserts.ids[row] for row in rows)
            vectors.append(given[rows])
            prints.append(new[rows])
            deletes += (one for one in chunk.deletes if (held.state(one) or (-1,))[0] == number)
            if placed + len(upserts) > most:
                return None
        placed += len(upserts)
        changed.append(ChangedIds(upserts=upserts, deletes=deletes))
    return Batch(
        changed=tuple(changed),
        vectors=np.concatenate(vectors),
        fingerprints=np.concatenate(prints),
    )


def in_two_inputs(held: Held, batch: Batch) -> bool:
    """Whether an entry that came is in another input as well."""
    seen: set[str] = set()
    for number, one in enumerate(batch.changed):
        for entry_id in one.upserts:
            there, _ = held.state(entry_id) or (number, 0)
            leaves = there != number and entry_id in batch.changed[there].deletes
            if entry_id in seen or (there != number and not leaves):
                return True
            seen.add(entry_id)
    return False
