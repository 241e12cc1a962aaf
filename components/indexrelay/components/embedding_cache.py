"""The vectors themselves, by id: matrices and a table of ids, all mapped.

For services that compute with embeddings rather than search them. It holds what the collection
holds, bit for bit: nothing is normalised. All processes of a host share its pages.

A version that follows a small batch names the base of the one before it again, and writes a delta
and tombstones beside it (`indexrelay.components.layered`): its cost follows the batch. An upsert
that gives an entry again bit for bit is no change.

The gates open the files again and compare rows with the collection, bit for bit. A version written
in one piece has every row compared. One that continues another names a base that was checked when
it was written; compared are its delta, what changed, and a sample of what did not.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from indexrelay.components.errors import DamagedFileError, UnknownEntryError
from indexrelay.components.formats.id_table import IdTable
from indexrelay.components.formats.mapped_array import mapped_array, new_mapped_array, save_array
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.gates import Verdict, equal, judge
from indexrelay.components.kind import Built, Job, Kind, KindParameters, PreviousVersion
from indexrelay.components.layered.build import (
    Full,
    Increment,
    build_details,
    changes_of,
    incremental_or_full,
    inherit_all,
    numbered_chunks,
    refuse_infinite,
)
from indexrelay.components.layered.layers import IDS, Found, LayeredIds, Layers
from indexrelay.components.layered.succession import ChangedIds, InputRows, Succession, succeed
from indexrelay.components.served import Closable
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import Changes, Entries, SourceSnapshot, Vectors


class EmbeddingCacheParameters(KindParameters):
    """The keys of a ``kind = "embedding_cache"`` table."""

    max_delta: Annotated[float, Field(ge=0, le=1)] = 0.10
    """Rows beside the base, as a share of it, above which everything is written anew. 0.10: every
    build writes the delta, so this bounds what a batch costs. 0: always anew, one mapped array."""

    max_tombstones: Annotated[float, Field(ge=0, le=1)] = 0.10
    """Rows of the base that no longer count, as a share of it, above which everything is written
    anew. 0.10: they take disk and nothing else."""


MATRIX: Final = "matrix.npy"
DELTA: Final = "delta.npy"
BLOCK_ROWS: Final = 8192
"""4 MB at 128 dimensions: stays in a processor's cache while it is computed with."""


class Embeddings(Closable):
    """Vectors by id; immutable, and safe to use from many threads."""

    _closed_by = frozenset({"_base", "_delta"})

    def __init__(self, files: Mapping[str, Path]) -> None:
        """Map the files of a version.

        Raises:
            DamagedFileError: one of them is not what was written.
            OSError: one of them cannot be opened.
        """
        self._ids = LayeredIds(files)
        self._base = _rows(files[MATRIX], len(self._ids.base), None)
        self._delta = self._base[:0]
        if self._ids.delta is not None:
            self._delta = _rows(files[DELTA], len(self._ids.delta), self.dimension)

    @property
    def ids(self) -> LayeredIds:
        """Every id, in the order of their UTF-8 bytes: a mapped sequence, not a list."""
        return self._ids

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return int(self._base.shape[1])

    def __len__(self) -> int:
        return len(self._ids)

    def __bool__(self) -> bool:
        """A cache is there, even one without entries; ask for its ``len``."""
        return True

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._ids

    def get(self, entry_id: str) -> Vectors:
        """A read-only view of one vector, shape ``(dimension,)``.

        Raises:
            UnknownEntryError: it is not in here.
        """
        return self._view(self._ids.locate(entry_id))

    def get_many(self, entry_ids: Iterable[str]) -> Vectors:
        """A copy of some vectors in the order asked for, shape ``(n, dimension)``.

        Raises:
            UnknownEntryError: one is not in here; the error names the first.
        """
        found = [self._view(self._ids.locate(entry_id)) for entry_id in entry_ids]
        return np.array(found, dtype=np.float32).reshape(len(found), self.dimension)

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[tuple[int, Vectors]]:
        """All vectors in the order of `ids`, at most ``rows`` at a time, to compute with.

        Each block comes with the number of its first row, has the shape ``(m, dimension)``, and is
        read-only: a view of the mapped file where the rows lie there side by side, which after
        small batches most do, else a copy of these rows alone::

            scores = np.empty(len(cache), np.float32)
            for first, vectors in cache.blocks():
                scores[first : first + len(vectors)] = vectors @ query
        """
        for first in range(0, len(self), rows):
            yield first, self.block(first, min(first + rows, len(self)))

    def block(self, first: int, end: int) -> Vectors:
        """The vectors of the rows ``first`` to ``end`` (left out), as `blocks` gives them."""
        in_delta, rows = self._ids.layers.locate(np.arange(first, end))
        if not in_delta.any() and _side_by_side(rows):
            return self._base[rows[0] : rows[-1] + 1]
        block = np.empty((len(rows), self.dimension), dtype=np.float32)
        block[in_delta] = self._delta[rows[in_delta]]
        block[~in_delta] = self._base[rows[~in_delta]]
        block.flags.writeable = False
        return block

    def to_numpy(self) -> Vectors:
        """All vectors as one read-only array, shape ``(len, dimension)``, in the order of `ids`.

        Without a copy where the version was written in one piece; else a new array of
        ``4 * len * dimension`` bytes that belongs to this process alone: `blocks` needs none.
        """
        if self._ids.layers.plain:
            return self._base
        return self.block(0, len(self))

    @property
    def delta(self) -> Vectors:
        """The vectors that came or changed since the base was written, shape ``(m, dimension)``."""
        return self._delta

    def warm(self) -> None:
        """Touch what a first look-up would have to fetch from disk."""
        if len(self):
            self.block(0, 1).sum()

    def close(self) -> None:
        """Let go of the maps; a view that was handed out keeps its own hold on them."""
        del self._base, self._delta
        self._ids.close()

    def _view(self, found: Found) -> Vectors:
        layer = self._delta if found.in_delta else self._base
        vector: Vectors = layer[found.row]
        return vector


def _side_by_side(rows: Rows) -> bool:
    return len(rows) > 0 and int(rows[-1] - rows[0]) == len(rows) - 1


def _rows(path: Path, count: int, dimension: int | None) -> Vectors:
    array: Vectors = mapped_array(path, (None, dimension), np.float32)
    if len(array) != count:
        raise DamagedFileError(path, f"it has {len(array)} rows for {count} ids")
    return array


def build_in_full(job: Job, mode: Full) -> Built:
    """Write matrix and ids in one pass over the source.

    Raises:
        UnusableInputError: a vector holds a NaN or an infinity.
    """
    source = job.collection
    files = {MATRIX: job.workdir / MATRIX, IDS: job.workdir / IDS}
    shape = (source.count, source.dimension)
    matrix = new_mapped_array(files[MATRIX], shape, np.float32)
    with IdTable.writer(files[IDS]) as ids:
        for first, chunk in numbered_chunks(source):
            refuse_infinite(chunk)
            matrix[first : first + len(chunk)] = chunk.vectors
            ids.extend(chunk.ids)
            job.progress((first + len(chunk)) / source.count)
    matrix.flush()
    return Built(
        files=files,
        entries=source.count,
        details={"build": build_details(mode), "base": source.count, "delta": 0, "tombstones": 0},
    )


def extend(job: Job, continued: Increment, parameters: EmbeddingCacheParameters) -> Built | Full:
    """Write delta and tombstones, and name the base again.

    Raises:
        UnusableInputError: a vector holds a NaN or an infinity.
        DamagedFileError: a file of the previous version is not what was written.
    """
    source, previous = job.collection, continued.previous
    with closing(Embeddings(previous.files)) as last:
        ids = last.ids
        base = len(ids.base)
        most = int(parameters.max_delta * base)
        batch = _read(last, continued.changes[source.collection], most)
        if batch is None:
            return _outgrown("the delta", parameters.max_delta, "max_delta")
        changed, vectors = batch
        if not changed.upserts and not changed.deletes:
            return inherit_all(previous)
        rows = InputRows(base=(base,), delta=(len(ids.layers.places),))
        next_ = succeed(ids, rows, [changed])
        if len(next_) > most:
            return _outgrown("the delta", parameters.max_delta, "max_delta")
        if len(next_.layers.tombstones) > parameters.max_tombstones * base:
            return _outgrown("tombstones", parameters.max_tombstones, "max_tombstones")
        delta = next_.column(last.delta, vectors)
        return _written(job, previous, next_, delta)


def _written(job: Job, previous: PreviousVersion, next_: Succession, delta: Vectors) -> Built:
    save_array(job.workdir / DELTA, delta)
    job.progress(1.0)
    same = {name: previous.manifest.files[name] for name in (MATRIX, IDS)}
    return Built(
        files={**same, **next_.write(job.workdir), DELTA: job.workdir / DELTA},
        entries=len(next_.layers),
        extends=True,
        details={"build": build_details(None), **_sizes(next_.layers)},
    )


def _read(
    last: Embeddings, changes: Iterator[Changes], most: int
) -> tuple[ChangedIds, Vectors] | None:
    """What differs from the last version; ``None`` once that is more than ``most`` vectors."""
    upserts: list[str] = []
    deletes: list[str] = []
    vectors: list[Vectors] = [np.empty((0, last.dimension), dtype=np.float32)]
    for chunk in changes:
        refuse_infinite(chunk.upserts)
        rows = _differing(last, chunk.upserts)
        upserts += (chunk.upserts.ids[row] for row in rows)
        vectors.append(chunk.upserts.vectors[rows])
        deletes += (entry_id for entry_id in chunk.deletes if entry_id in last)
        if len(upserts) > most:
            return None
    return ChangedIds(upserts=upserts, deletes=deletes), np.concatenate(vectors)


def _differing(last: Embeddings, upserts: Entries) -> list[int]:
    """The rows of ``upserts`` that ``last`` does not hold bit for bit."""
    given = zip(upserts.ids, upserts.vectors, strict=True)
    return [
        row for row, (entry_id, vector) in enumerate(given) if not _holds(last, entry_id, vector)
    ]


def _holds(last: Embeddings, entry_id: str, vector: Vectors) -> bool:
    try:
        return last.get(entry_id).tobytes() == vector.tobytes()
    except UnknownEntryError:
        return False


def _sizes(layers: Layers) -> dict[str, Any]:
    return {
        "base": layers.base,
        "delta": len(layers.places),
        "tombstones": len(layers.tombstones),
    }


def _outgrown(what: str, limit: float, parameter: str) -> Full:
    return Full(f"{what} would pass {limit:.0%} of the base ({parameter})")


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


def gates(
    source: SourceSnapshot,
    built: Built,
    files: Mapping[str, Path],
    continued: PreviousVersion | None,
) -> Iterator[Check]:
    """Yield one `Check` for each gate; nothing else is judged where the files do not open.

    ``continued`` is the version whose base the new one names; ``None``: it has its own.
    """
    started = perf_counter()
    try:
        cache = Embeddings(files)
    except DamagedFileError as error:
        yield Check(name="reads_back", passed=False, detail=str(error))
        return
    yield Check(name="reads_back", passed=True, seconds=perf_counter() - started)
    with closing(cache):
        yield judge("count", lambda: _count(cache, source, built))
        yield judge(
            "dimension",
            lambda: equal(cache.dimension, source.dimension, "vectors have another length"),
        )
        if continued is None:
            yield from _of_everything(source, cache)
        else:
            yield from _of_what_changed(source, cache, continued)


def _of_everything(source: SourceSnapshot, cache: Embeddings) -> Iterator[Check]:
    yield judge("ids_unique", lambda: equal(cache.ids.base.check(), 0, "ids repeat in the source"))
    yield judge("vectors_finite", lambda: _finite(vectors for _, vectors in cache.blocks()))
    yield judge("rows_match_source", lambda: _rows_match(cache, source))


def _of_what_changed(
    source: SourceSnapshot, cache: Embeddings, continued: PreviousVersion
) -> Iterator[Check]:
    ids = cache.ids
    new = ids.delta_rows(upserted_ids(source, continued))
    with closing(Embeddings(continued.files)) as last:
        yield judge("ids_unique", lambda: equal(ids.repeats(new), 0, "ids repeat each other"))
        yield judge(
            "ids_in_order",
            lambda: equal(ids.out_of_order(rows=new), 0, "ids of the delta stand elsewhere"),
        )
        yield judge("vectors_finite", lambda: _finite([cache.delta]))
        yield judge("rows_match_source", lambda: changed_entries(source, cache, continued))
        yield judge("unchanged_kept", lambda: kept_entries(source, cache, last, continued))


def _count(cache: Embeddings, source: SourceSnapshot, built: Built) -> Verdict:
    if built.entries != source.count:
        return equal(built.entries, source.count, "the build counted other entries than there are")
    return equal(len(cache), source.count, "the files hold another number of entries")


def _finite(blocks: Iterable[Vectors]) -> Verdict:
    wrong = sum(int(np.count_nonzero(~np.isfinite(block).all(axis=1))) for block in blocks)
    return equal(wrong, 0, "vectors hold a NaN or an infinity")


def _rows_match(cache: Embeddings, source: SourceSnapshot) -> Verdict:
    """Every id and every vector stands in the row where the source has it."""
    first = 0
    for chunk in source.chunks():
        end = first + len(chunk)
        if cache.ids[first:end] != chunk.ids:
            return Verdict(False, f"rows {first} to {end} name other entries than the source")
        if not np.array_equal(cache.block(first, end), chunk.vectors):
            return Verdict(False, f"rows {first} to {end} hold other vectors than the source")
        first = end
    return equal(first, len(cache), "the source gives another number of entries")


class EmbeddingCache(Kind[EmbeddingCacheParameters, Embeddings]):
    """The vectors of one collection, as they are."""

    preload = ("numpy",)
    max_inputs = 1
    takes_components = False

    def build(self, job: Job) -> Built:
        """Write what changed beside the base of the previous version, or everything.

        Raises:
            UnusableInputError: it is not made from one collection, or a vector holds NaN or ±inf.
        """
        parameters = self.parameters
        return incremental_or_full(
            job,
            lambda continued: extend(job, continued, parameters),
            lambda mode: build_in_full(job, mode),
        )

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """Open the files anew and hold them against the collection: every row, or what changed."""
        continued = job.previous if built.extends else None
        return gates(job.collection, built, files, continued)

    def load(self, files: Mapping[str, Path]) -> Embeddings:
        """Map a version for serving.

        Raises:
            DamagedFileError: one of its files is not what was written.
        """
        served = Embeddings(files)
        served.warm()
        return served


__all__ = ["EmbeddingCache", "EmbeddingCacheParameters", "Embeddings"]
