"""The kind ``vector_index``: one class that builds, verifies, loads and inspects a vector index.

A build continues the last version where it can (`incremental_build`) and is a full one otherwise
(`full_build`); each has gates of its own.

``auto`` takes minutes to find and build the best index over a large collection. So the first
release has the index that is ready soonest (`selection.soonest`). It reaches the recall asked for,
and is marked as provisional. The rebuilder builds the best index behind it, whenever it has nothing
else to do, and releases it as the next version of the same entries. A compaction would be as slow,
and a quick one would replace a graph by lists for that time. So where the delta or the tombstones
outgrow their limits, the base is extended a while longer, up to twice the limits, and the version
is marked as outgrown. The new base is built behind it in the same way. Only what changes more than
that, at once or while the new base is built, gets a quick version. Both marks are details of a
version, and so is the generation at which its base was built. From that follows whether a version
that was built behind another one is still better than what serves (`VectorIndex.improves`).

`VectorIndex.inspect` runs in a sandbox, before a reader
opens files that its host has not seen: FAISS checks a graph when it reads it, but not the row
numbers in inverted lists, and may crash on a wrong one.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final, cast

import numpy as np

from indexrelay.components.errors import CorruptFileError, UnbuildableIndexError
from indexrelay.components.golden import (
    GOLDEN_KEYS,
    GoldenQuery,
    dimension_mistakes,
    golden_gates,
)
from indexrelay.components.kind import (
    Built,
    Goal,
    Improvable,
    Job,
    Kind,
    PreviousVersion,
    Trial,
    Verdict,
    judge,
)
from indexrelay.components.layered import incremental_or_full
from indexrelay.components.vector_index.full_build import (
    BASE_GENERATION,
    PROVISIONAL,
    build_in_full,
)
from indexrelay.components.vector_index.gates import (
    full_gates,
    incremental_gates,
    validation_gates,
)
from indexrelay.components.vector_index.incremental_build import OUTGROWN, extend
from indexrelay.components.vector_index.index_build import try_factory
from indexrelay.components.vector_index.index_search import openmp_threads
from indexrelay.components.vector_index.mapped_index import require_faiss, rows_by_list
from indexrelay.components.vector_index.sample import SAMPLE, QuerySample
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.components.vector_index.spec import AUTO, VectorIndexParameters, parse_factory
from indexrelay.components.vector_index.version import BASE, DELTA_INDEX
from indexrelay.schemas.errors import MissingExtraError
from indexrelay.schemas.gates import GateSettings
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.schemas.versions import Check, VersionManifest
from indexrelay.storage.entries import Vectors


class VectorIndex(Kind[VectorIndexParameters, VectorSearch]):
    """A FAISS index over the vectors of one collection, with ids and payloads beside it.

    Under cosine vectors are indexed at unit length. An index without entries is a valid one, and
    finds nothing.
    """

    preload = ("faiss", "numpy")
    sandboxed = frozenset({BASE, DELTA_INDEX})
    # Nothing in the files follows from quick_first either: a version that is there stays.
    gate_parameters = GOLDEN_KEYS | {"quick_first"}
    has_quick_versions = True
    max_inputs = 1
    takes_components = False

    @classmethod
    def improvable(cls, manifest: VersionManifest) -> Improvable | None:
        """Whether its index was the one that was ready soonest, or has outgrown its limits."""
        details = manifest.details
        reason = details.get(PROVISIONAL) or details.get(OUTGROWN)
        if not reason:
            return None
        since = dict.fromkeys(manifest.covers, _base_generation(details))
        return Improvable(reason=str(reason), since=since)

    @classmethod
    def improves(cls, built: VersionManifest, served: VersionManifest) -> bool:
        """Whether it has another base, and no older one.

        The best index may turn out to be the one that was ready soonest, byte for byte: then it
        makes a provisional version a final one. What was built on an improvement has its base, and
        is final.
        """
        another = PROVISIONAL in served.details or built.files.get(BASE) != served.files.get(BASE)
        return (
            another
            and PROVISIONAL not in built.details
            and _base_generation(built.details) >= _base_generation(served.details)
        )

    def trial(self, collections: Mapping[str, CollectionSettings]) -> Trial:
        """Whether FAISS can make a named index of vectors of this length, and from when it does;
        whether golden queries are as long."""
        wrong = dimension_mistakes(self.parameters, collections)
        if wrong or self.parameters.index == AUTO:
            return Trial(wrong=wrong)
        factory = parse_factory(self.parameters.index)
        for collection in collections.values():
            try:
                try_factory(
                    factory,
                    dimension=collection.dimension,
                    metric=collection.metric,
                    few_rows=True,
                )
            except UnbuildableIndexError as error:
                return Trial(wrong=(str(error),))
            except MissingExtraError:  # a host that only reads settings need not have it
                continue
        if not factory.needed_rows:
            return Trial()
        note = (
            f"{factory.text} is trained on {factory.needed_rows:,} entries; while there are "
            "fewer, a scan (Flat) serves, and the version's details say so"
        )
        return Trial(notes=(note,))

    def build(self, job: Job) -> Built:
        """Write what changed beside the base of the previous version, or everything.

        Raises:
            UnusableInputError: it is not made from one collection, or a vector cannot be indexed.
            UnbuildableIndexError: FAISS refuses the index over these vectors.
            MemoryLimitError: ``max_bytes`` cannot be met.
        """
        return incremental_or_full(
            job,
            lambda increment: extend(job, increment, self.parameters),
            lambda mode: build_in_full(job, mode, self.parameters),
        )

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """Compare the files, in fresh handles, with the source: all of it, or what changed."""
        if built.extends and job.previous is not None:
            gates = incremental_gates(job, job.previous, built, files, self.parameters)
        else:
            gates = full_gates(job.collection, built, files, self.parameters, job.gates)
        if self.parameters.golden is not None:
            gates = golden_gates(
                gates, self.parameters, load=lambda: VectorSearch(files), ask=_answer
            )
        with openmp_threads(job.threads if built.extends else job.free_threads):
            passed = True
            for check in gates:
                passed = passed and check.passed
                yield check
            if job.goal is Goal.IMPROVEMENT and job.previous is not None and passed:
                previous = job.previous
                yield judge("no_slower_ms", lambda: _no_slower(files, previous))
            if (
                passed
                and job.previous is not None
                and (_has_limits(job.gates) or not built.extends)
            ):
                from indexrelay.components.vector_index.comparison import comparison_gates

                yield from comparison_gates(files, job.previous, job.gates)

    def validate(
        self, files: Mapping[str, Path], manifest: VersionManifest, asked: GateSettings
    ) -> Iterable[Check]:
        """Search its own vectors exactly, and compare: its sample, its recall, its latency."""
        gates = validation_gates(files, manifest, self.parameters, asked)
        if self.parameters.golden is None:
            return gates
        return golden_gates(gates, self.parameters, load=lambda: VectorSearch(files), ask=_answer)

    def load(self, files: Mapping[str, Path]) -> VectorSearch:
        """Map a version for serving.

        Raises:
            CorruptFileError: one of its files is not what was written.
            MissingExtraError: FAISS is not installed.
        """
        served = VectorSearch(files)
        served.warm()
        return served

    def inspect(self, value: Any) -> None:
        """Read every row of the inverted lists, and search some queries.

        Raises:
            CorruptFileError: an index is not what a build writes.
        """
        search = cast("VectorSearch", value)
        base, delta = search.contents.base, search.contents.delta
        _check_rows(base.index, base.paths[BASE])
        if delta is not None and delta.index is not None:
            _check_rows(delta.index, delta.path)
        if not len(search):
            return
        positions = np.unique(np.linspace(0, len(search) - 1, _QUERIES).astype(np.int64))
        for position in positions.tolist():
            search.search(search.vector_at(position), k=10)
        search.search(search.vector_at(0), k=min(1000, len(search)))

    def reload(self, files: Mapping[str, Path], previous: Any) -> VectorSearch:
        """`load`, with the base that ``previous`` has open, and warmed by its recent queries."""
        served = VectorSearch(files, previous)
        served.warm(previous)
        return served

    @classmethod
    def overlap(cls, new: Any, before: Any) -> float | None:
        """Of the best ten of its last queries, as the mean over them."""
        from indexrelay.components.vector_index.comparison import overlap

        ours, theirs = cast("VectorSearch", new), cast("VectorSearch", before)
        queries = theirs.recent_queries
        if not queries or not len(ours) or not len(theirs):
            return None
        if ours.dimension != theirs.dimension:
            return 0.0
        return overlap(ours, theirs, np.concatenate(queries), k=10)


def _base_generation(details: Mapping[str, Any]) -> int:
    """0 where an earlier release built the base."""
    found = details.get(BASE_GENERATION, 0)
    return found if isinstance(found, int) else 0


def _has_limits(asked: GateSettings) -> bool:
    """Whether every build has to be compared with the version that serves."""
    limits = (asked.min_overlap, asked.max_norm_shift, asked.max_centroid_shift)
    return any(limit is not None for limit in limits)


_TIMED_QUERIES: Final = 100
_MAY_BE_SLOWER: Final = 1.2
"""Two measurements of the same index differ by that much on a busy host."""


def _no_slower(files: Mapping[str, Path], previous: PreviousVersion) -> Verdict:
    """Single queries, as in a reader, take no longer than with the version that serves.

    Both answer the same queries in turn, so that what else the host does slows both.
    """
    with closing(VectorSearch(files)) as new, closing(VectorSearch(previous.files)) as served:
        sample = QuerySample.load(files[SAMPLE], rows=new.facts.rows, dimension=new.dimension)
        ours: list[float] = []
        theirs: list[float] = []
        for vector in sample.vectors[:_TIMED_QUERIES]:
            for index, seconds in ((new, ours), (served, theirs)):
                started = perf_counter()
                index.search(vector)
                seconds.append(perf_counter() - started)
    if not ours:
        return Verdict(True, "there is nothing to ask for")
    measured, limit = 1000 * median(ours), 1000 * _MAY_BE_SLOWER * median(theirs)
    fast = measured <= limit
    otherwise = "what serves answers sooner, and stays"
    return Verdict(fast, "" if fast else otherwise, measured=measured, limit=limit)


def _answer(index: VectorSearch, query: GoldenQuery, k: int) -> Iterator[str]:
    """The ids of the nearest entries to one golden query."""
    if query.id is not None:
        hits = index.search_by_id(query.id, k=k)
    else:
        hits = index.search(cast("Vectors", query.vector), k=k)
    return (hit.id for hit in hits)


_QUERIES: Final = 16


def _check_rows(index: Any, path: Path) -> None:
    """Raise `CorruptFileError` where inverted lists do not hold each row once."""
    for lists, count in _inverted_lists(index):
        seen = np.zeros(count, dtype=bool)
        total = 0
        for _, rows in rows_by_list(lists):
            total += len(rows)
            if total > count:
                break
            if rows.min() < 0 or rows.max() >= count:
                raise CorruptFileError(path, "a list holds a row that does not exist")
            seen[rows] = True
        if total != count or not seen.all():
            raise CorruptFileError(path, "its lists do not hold each row once")


def _inverted_lists(index: Any) -> Iterator[tuple[Any, int]]:
    """All inverted lists in an index, and how many rows each set of them must hold."""
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    match index:
        case faiss.IndexPreTransform():
            yield from _inverted_lists(index.index)
        case faiss.IndexRefine():
            yield from _inverted_lists(index.base_index)
            yield from _inverted_lists(index.refine_index)
        case faiss.IndexIVF():
            yield index.invlists, index.ntotal
            yield from _inverted_lists(index.quantizer)
