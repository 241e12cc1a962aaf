"""Two gates on a cache that continues another: what changed, and what did not.

Together they say that the new version is the last one with the batch applied. The last one passed
its own gates; so this costs what the batch costs, and what the delta weighs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.embedding_cache.served import Embeddings
from indexrelay.components.inputs import changes_of
from indexrelay.components.judging import Verdict, equal
from indexrelay.components.kind import PreviousVersion
from indexrelay.storage.entries import Changes, SourceSnapshot

_SAMPLED: Final = 500
"""Entries of the base that are looked up as a user would: 20 microseconds each."""


def upserted_ids(source: SourceSnapshot, continued: PreviousVersion) -> Iterator[str]:
    """Every id that came, changed, or was handed over again."""
    for chunk in _changes(source, continued):
        yield from chunk.upserts.ids


def changed_entries(
    source: SourceSnapshot, cache: Embeddings, continued: PreviousVersion
) -> Verdict:
    """Every entry that came or changed is found as the source has it, and none that went."""
    wrong = 0
    for chunk in _changes(source, continued):
        given = zip(chunk.upserts.ids, chunk.upserts.vectors, strict=True)
        wrong += sum(
            entry_id not in cache or not np.array_equal(cache.get(entry_id), vector)
            for entry_id, vector in given
        )
        wrong += sum(entry_id in cache for entry_id in chunk.deletes)
    return equal(wrong, 0, "entries that changed are not as the source has them")


def kept_entries(
    source: SourceSnapshot, cache: Embeddings, last: Embeddings, continued: PreviousVersion
) -> Verdict:
    """What did not change is what it was: all of the last delta, and some entries of the base."""
    changed: set[str] = set()
    for chunk in _changes(source, continued):
        changed.update(chunk.upserts.ids, chunk.deletes)
    here, there = _without(changed, cache), _without(changed, last)
    if here.ids != there.ids or not all(map(np.array_equal, here.columns, there.columns)):
        return Verdict(False, "the delta lost or changed rows that are not in the batch")
    some = np.linspace(0, len(last) - 1, num=min(_SAMPLED, len(last))).astype(np.int64)
    asked = {last.ids[row] for row in some.tolist()} - changed
    wrong = sum(
        entry_id not in cache or not np.array_equal(cache.get(entry_id), last.get(entry_id))
        for entry_id in asked
    )
    return equal(wrong, 0, "entries that did not change are not what they were")


@dataclass(frozen=True, slots=True)
class _Delta:
    """Some rows of a delta."""

    ids: list[str]
    columns: tuple[NDArray[Any], ...]


def _without(changed: set[str], cache: Embeddings) -> _Delta:
    """All of the delta, but for what changed."""
    ids = list(cache.ids.delta or ())
    rows = [row for row, entry_id in enumerate(ids) if entry_id not in changed]
    return _Delta([ids[row] for row in rows], (cache.delta[rows], cache.ids.layers.places[rows]))


def _changes(source: SourceSnapshot, continued: PreviousVersion) -> Iterator[Changes]:
    return changes_of(source, continued.manifest.covers[source.collection])
