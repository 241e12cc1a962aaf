"""The kind ``vector_index``: one class that builds, verifies, loads and inspects a vector index.

A build continues the last version where it can (`incremental_build`) and is a full one otherwise
(`full_build`); each has gates of its own. `VectorIndex.inspect` runs in a sandbox, before a reader
opens files that its host has not seen: FAISS checks a graph when it reads it, but not the row
numbers in inverted lists, and may crash on a wrong one.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexrelay.components.errors import DamagedFileError, UnbuildableIndexError
from indexrelay.components.kind import Built, Job, Kind, Trial
from indexrelay.components.layered.build import incremental_or_full
from indexrelay.components.optional import require_faiss
from indexrelay.components.vector_index.factory import parse_factory
from indexrelay.components.vector_index.full_build import build_in_full
from indexrelay.components.vector_index.full_gates import gates
from indexrelay.components.vector_index.incremental_build import extend
from indexrelay.components.vector_index.incremental_gates import gates_of_change
from indexrelay.components.vector_index.index_build import try_factory
from indexrelay.components.vector_index.index_search import openmp_threads
from indexrelay.components.vector_index.parameters import AUTO, VectorIndexParameters
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.components.vector_index.version import BASE, DELTA_INDEX
from indexrelay.schemas.errors import MissingExtraError
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.schemas.versions import Check

_QUERIES: Final = 16


def inspect(search: VectorSearch) -> None:
    """Look at every row of the inverted lists, and ask some queries.

    Raises:
        DamagedFileError: an index is not what a build writes.
    """
    contents = search.contents
    _check_rows(contents.base.index, contents.base.paths[BASE])
    if contents.delta is not None and contents.delta.index is not None:
        _check_rows(contents.delta.index, contents.delta.path)
    if not len(search):
        return
    at = np.unique(np.linspace(0, len(search) - 1, _QUERIES).astype(np.int64))
    for position in at.tolist():
        search.search(search.vector_at(position), k=10)
    search.search(search.vector_at(0), k=min(1000, len(search)))


def _check_rows(index: Any, path: Path) -> None:
    for lists, count in _inverted_lists(index):
        seen = np.zeros(count, dtype=bool)
        total = 0
        for place in range(lists.nlist):
            size = lists.list_size(place)
            if not size:
                continue
            total += size
            if total > count:
                break
            rows = require_faiss().rev_swig_ptr(lists.get_ids(place), size)
            if rows.min() < 0 or rows.max() >= count:
                raise DamagedFileError(path, "a list holds a row that does not exist")
            seen[rows] = True
        if total != count or not seen.all():
            raise DamagedFileError(path, "its lists do not hold each row once")


def _inverted_lists(index: Any) -> Iterator[tuple[Any, int]]:
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


class VectorIndex(Kind[VectorIndexParameters, VectorSearch]):
    """A FAISS index over the vectors of one collection, with ids and payloads beside it.

    Under cosine vectors are indexed at unit length. An index without entries is a valid one, and
    finds nothing.
    """

    preload = ("faiss", "numpy")
    sandboxed = frozenset({BASE, DELTA_INDEX})
    max_inputs = 1
    takes_components = False

    def trial(self, collections: Mapping[str, CollectionSettings]) -> Trial:
        """Whether FAISS can make a named index of vectors of this length, and from when it does."""
        if self.parameters.index == AUTO:
            return Trial()
        factory = parse_factory(self.parameters.index)
        for collection in collections.values():
            try:
                try_factory(factory, dimension=collection.dimension, metric=collection.metric)
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
            lambda continued: extend(job, continued, self.parameters),
            lambda mode: build_in_full(job, mode, self.parameters),
        )

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """Open the files anew and hold them against the collection: every row, or what changed."""
        with openmp_threads(job.threads):
            if built.extends and job.previous is not None:
                yield from gates_of_change(job, job.previous, built, files, self.parameters)
            else:
                yield from gates(job.collection, built, files, self.parameters)

    def load(self, files: Mapping[str, Path]) -> VectorSearch:
        """Map a version for serving.

        Raises:
            DamagedFileError: one of its files is not what was written.
            MissingExtraError: FAISS is not installed.
        """
        served = VectorSearch(files)
        served.warm()
        return served

    def inspect(self, value: Any) -> None:
        """Every row of the indexes, and some queries.

        Raises:
            DamagedFileError: an index is not what a build writes.
        """
        inspect(value)

    def reload(self, files: Mapping[str, Path], previous: Any) -> VectorSearch:
        """`load`, with the base that ``previous`` has open, and warmed by what that was asked."""
        served = VectorSearch(files, previous)
        served.warm(previous)
        return served
