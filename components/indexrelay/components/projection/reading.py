"""Reads what is to be laid out: ids and vectors of every input, as one matrix.

Layouts work on Euclidean distances. Under cosine the vectors are brought to unit length first: the
squared distance is then twice the cosine distance, so near means near in either.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from indexrelay.components.errors import UnusableInputError
from indexrelay.components.inputs import numbered_chunks
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import SourceSnapshot, Vectors


@dataclass(frozen=True, kw_only=True)
class Points:
    """What is to be laid out, ``n`` entries in the order of the inputs, then of their ids."""

    ids: list[str]
    vectors: Vectors
    """Shape ``(n, dimension)``, float32; unit length under cosine."""

    @property
    def differ(self) -> bool:
        """Whether any two vectors are different: if not, one place is right for all of them."""
        return bool((self.vectors != self.vectors[:1]).any())


def read_points(collections: Mapping[str, SourceSnapshot]) -> Points:
    """All entries of ``collections``: ``4 * n * dimension`` bytes, as every layout needs them.

    Raises:
        UnusableInputError: the collections have different dimensions or metrics, or share ids, or
            one of them gives another number of entries than it says it has.
    """
    snapshots = list(collections.values())
    check_alike(snapshots)
    vectors = np.empty((sum(s.count for s in snapshots), snapshots[0].dimension), np.float32)
    ids: list[str] = []
    for chunk_ids, chunk in _chunks(snapshots):
        vectors[len(ids) : len(ids) + len(chunk_ids)] = chunk
        ids += chunk_ids
    if len(snapshots) > 1:
        _check_unique(ids)
    return Points(ids=ids, vectors=vectors)


def _chunks(snapshots: list[SourceSnapshot]) -> Iterator[tuple[list[str], Vectors]]:
    for snapshot in snapshots:
        for _, chunk in numbered_chunks(snapshot):
            yield chunk.ids, as_laid_out(chunk.vectors, snapshot.metric)


def as_laid_out(vectors: Vectors, metric: Metric) -> Vectors:
    """Vectors of a collection as layouts see them: at unit length under cosine."""
    if metric is not Metric.COSINE:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def check_alike(snapshots: Sequence[SourceSnapshot]) -> None:
    """Raise `UnusableInputError` where the collections do not go together."""
    first = snapshots[0]
    for other in snapshots[1:]:
        for what, left, right in (
            ("dimension", first.dimension, other.dimension),
            ("metric", first.metric, other.metric),
        ):
            if left != right:
                raise UnusableInputError(
                    f"{first.collection} has the {what} {left} and {other.collection} has {right}; "
                    "one map needs the same of all its collections"
                )


def _check_unique(ids: list[str]) -> None:
    twice = [entry_id for entry_id, times in Counter(ids).items() if times > 1]
    if twice:
        raise UnusableInputError(
            f"{len(twice)} id(s) are in more than one of the collections, the first is "
            f"{twice[0]!r}; one map needs ids that tell the entries apart"
        )
