"""Builds one FAISS index: tried on a few rows, trained on a sample, filled block by block, written.

Centroids are learned here (`centroids`) and codebooks by FAISS, both from a seeded sample, so
training costs what the number of lists asks for, whatever the size of the collection. The vectors
stay mapped. Beside the index a build holds the rows that it trains on, and little else.

FAISS grows its arrays by doubling, and for a moment holds the old one and the new: up to three
times the index. Here the room is reserved first. For inverted lists every row is assigned to its
list before any row is added, which costs 4 bytes a row, and no time, since adding assigns anyway.
The build's memory limit is raised by an estimate of the index's size before it is filled. The
estimate is rather too high than too low: a limit that is reached at the last row fails the build.

Whether FAISS can build a factory string at all is tried on a few rows, before the settings are used
and before the collection is read.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import UnbuildableIndexError
from indexrelay.components.kind import BuildMemory
from indexrelay.components.vector_index.centroids import Centroids, k_means
from indexrelay.components.vector_index.index_search import openmp_threads
from indexrelay.components.vector_index.mapped_index import graph_in, release_rows, require_faiss
from indexrelay.components.vector_index.metrics import faiss_metric
from indexrelay.components.vector_index.products import threads_at_once
from indexrelay.components.vector_index.spec import Factory, IndexSpec
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

Progress = Callable[[float], None]
"""Called with the share that is done, from 0 to 1."""
Lists = NDArray[np.signedinteger]
"""The inverted list of each row."""

_ROOMY_BYTES: Final = 256 * 1024 * 1024
"""Working memory from which on centroids are learned here: that takes some tens of megabytes more
than FAISS does, which learns them where a build may hold less."""
_KMEANS_ROUNDS: Final = 6
"""Of inverted lists; FAISS's default of ten costs more and saves no comparison."""
_LINKED_AMONG: Final = 128
"""Candidates for the links of a row in a graph (``efConstruction``). With FAISS's default of 40 a
build takes half as long, and a query near a recall of 0.99 twice as long (decision 023)."""
_NSG_CANDIDATES: Final = 128
"""Of an NSG search, which takes no parameters per search, so this is fixed in the index."""


@dataclass(frozen=True, slots=True)
class IndexFiles:
    """Where an index is written."""

    index: Path
    trained: Path
    """The same index before anything was added."""

    def beside(self) -> "IndexFiles":
        """Files of another index in the same folder."""
        return IndexFiles(*(path.with_name(f"{path.name}.tried") for path in self.both))

    def replace(self, others: "IndexFiles") -> None:
        """Take the place of others."""
        for path, other in zip(self.both, others.both, strict=True):
            path.replace(other)

    def remove(self) -> None:
        """Delete both files."""
        for path in self.both:
            path.unlink()

    @property
    def both(self) -> tuple[Path, Path]:
        """In one order."""
        return (self.index, self.trained)


def build_index(
    files: IndexFiles, vectors: Vectors, factory: Factory, spec: IndexSpec, progress: Progress
) -> None:
    """Build ``factory`` over ``vectors`` (ids are row numbers) and write it.

    Raises:
        UnbuildableIndexError: FAISS refuses, for example because the codes do not divide the
            dimension.
    """
    faiss, count, seed = require_faiss(), spec.count, spec.parameters.seed
    try:
        index = faiss.index_factory(spec.dimension, factory.text, faiss_metric(spec.metric))
        _seed_kmeans(faiss, index, seed)
        if factory.graph == "HNSW":
            graph_in(index).efConstruction = _LINKED_AMONG
        spec.memory.hold(_version_bytes(index, count))
        if count and not index.is_trained:
            rows = min(factory.trained_rows, trainable_rows(spec.dimension, spec.memory))
            # A named index is trained on what it needs, whatever the memory allows.
            training = _training_rows(vectors, max(rows, factory.needed_rows), seed)
            if _is_roomy(spec.memory):
                _learn_lists(index, training, seed)
            index.train(training)
            del training  # the rows are not needed again, and the index takes the room
        faiss.write_index(index, str(files.trained))
        progress(0.4)
        if factory.graph == "NSG":
            faiss.downcast_index(index).nsg.search_L = _NSG_CANDIDATES
        if count:
            threads = threads_at_once() if _is_roomy(spec.memory) else 1
            add_all(index, vectors, lambda share: progress(0.4 + 0.5 * share), threads=threads)
        faiss.write_index(index, str(files.index))
    except RuntimeError as error:  # what every FAISS exception becomes
        raise UnbuildableIndexError(
            f"FAISS cannot make {factory.text} over {count} vectors of length {spec.dimension}: "
            f"{error}"
        ) from error
    progress(1.0)


def _training_rows(vectors: Vectors, limit: int, seed: int) -> Vectors:
    count = len(vectors)
    if count <= limit:
        return np.ascontiguousarray(vectors)
    rows = np.random.default_rng(seed).choice(count, size=limit, replace=False)
    return np.ascontiguousarray(vectors[np.sort(rows)])


def _learn_lists(index: Any, rows: Vectors, seed: int) -> None:
    """Give inverted lists their centroids, where these are compared one by one.

    FAISS, which trains the rest of such an index, then takes them as they are.
    """
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        index = faiss.downcast_index(index.base_index)
    if not isinstance(index, faiss.IndexIVF) or len(rows) < index.nlist:
        return
    quantizer = faiss.downcast_index(index.quantizer)
    if isinstance(quantizer, faiss.IndexFlat) and not quantizer.ntotal:
        metric = _metric_of(faiss, quantizer)
        threads = threads_at_once()
        quantizer.add(
            k_means(rows, index.nlist, metric, rounds=_KMEANS_ROUNDS, seed=seed, threads=threads)
        )


def _metric_of(faiss: Any, index: Any) -> Metric:
    return Metric.L2 if index.metric_type == faiss.METRIC_L2 else Metric.INNER_PRODUCT


def _seed_kmeans(faiss: Any, index: Any, seed: int) -> None:
    """Start every k-means of the index from ``seed``; FAISS's default seed is 1234."""
    index = faiss.downcast_index(index)
    match index:
        case faiss.IndexPreTransform():
            _seed_kmeans(faiss, index.index, seed)
        case faiss.IndexRefine():
            _seed_kmeans(faiss, index.base_index, seed)
        case faiss.IndexIVF():
            index.cp.seed = 1234 + seed
            index.cp.niter = _KMEANS_ROUNDS
            if isinstance(index, faiss.IndexIVFPQ):
                index.pq.cp.seed = 1234 + seed
        case faiss.IndexPQ():
            index.pq.cp.seed = 1234 + seed
        case _:
            pass  # it has no k-means, or one whose seed FAISS does not expose


_TRAINING_SHARE: Final = 0.25
"""Of the working memory, for rows to train on. FAISS may hold them twice: as residuals, too."""
_TRAINING_BYTES: Final = 512 * 1024 * 1024
"""… and never more: 40 rows for each of 16,384 lists at 128 dimensions are 336 MB. At 1536 it is
87,381 rows, which is what 2048 lists need."""
_ROW_NUMBER_BYTES: Final = 8
_LIST_BYTES: Final = 128
"""Of each list: its two arrays, and what the allocator keeps beside them."""
_GRAPH_ROW_BYTES: Final = 20
"""Of each row in a graph: its level, where its links begin, a lock while it is built."""
_TABLE_ROW_BYTES: Final = 24
"""Of each row beside the index, while the version is written: where its id and its payload begin,
and its place in a list."""
_SLACK: Final = 1.03
"""What the allocator rounds up."""


def _is_roomy(memory: BuildMemory) -> bool:
    """Whether there is room for centroids that are learned here, and for threads that do it."""
    return memory.working_bytes is None or memory.working_bytes >= _ROOMY_BYTES


def trainable_rows(dimension: int, memory: BuildMemory) -> int:
    """How many rows may be trained on."""
    return memory.share(_TRAINING_SHARE, at_most=_TRAINING_BYTES) // (4 * dimension)


def _version_bytes(index: Any, count: int) -> int:
    """Bytes of an index of ``count`` rows and of the tables beside it, while they are written."""
    return int(_SLACK * (index_bytes(index, count) + _TABLE_ROW_BYTES * count))


def searched_bytes(factory: Factory, spec: IndexSpec) -> int:
    """Bytes that a search of the whole index may read, without the full vectors of a refinement."""
    faiss = require_faiss()
    owner = faiss.index_factory(spec.dimension, factory.text, faiss_metric(spec.metric))
    index = faiss.downcast_index(owner)
    return index_bytes(index.base_index if factory.refined else index, spec.count)


def index_bytes(index: Any, count: int) -> int:
    """Bytes of ``index``, which may still be empty, when it has ``count`` rows."""
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    match index:
        case faiss.IndexPreTransform():
            return index_bytes(index.index, count) + 4 * int(index.d) * int(index.index.d)
        case faiss.IndexRefine():
            return index_bytes(index.base_index, count) + index_bytes(index.refine_index, count)
        case faiss.IndexIVF():
            lists, code_bytes = int(index.nlist), int(index.code_size)
            coarse = index_bytes(index.quantizer, lists)
            return coarse + count * (code_bytes + _ROW_NUMBER_BYTES) + _LIST_BYTES * lists
        case faiss.IndexHNSW():
            graph = index.hnsw
            links = 4 * int(graph.nb_neighbors(0)) + 4 * int(graph.nb_neighbors(1)) // 15
            return index_bytes(index.storage, count) + count * (links + _GRAPH_ROW_BYTES)
        case faiss.IndexNSG():
            # Beside its links, those of the graph that it is cut out of.
            links = 4 * (int(index.nsg.R) + 2 * int(index.GK))
            return index_bytes(index.storage, count) + count * links
        case faiss.IndexFlatCodes():
            return count * int(index.code_size)
        case _:
            return 4 * count * int(index.d)


_BLOCK_BYTES: Final = 16 * 1024 * 1024
"""Vectors added in one call: far beyond its overhead, and small beside an index."""
_FEWEST_ROWS: Final = 1024


def add_all(index: Any, vectors: Vectors, progress: Progress, *, threads: int = 1) -> None:
    """Add ``vectors``, shape ``(n, dimension)``, with their row numbers as ids.

    Blocks of a mapped array are passed to FAISS without a copy.
    """
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    refinement = index.refine_index if isinstance(index, faiss.IndexRefine) else None
    base = index if refinement is None else faiss.downcast_index(index.base_index)
    if _has_plain_lists(faiss, base):
        within = _assigned(base, vectors, lambda share: progress(0.7 * share), threads)
        add_to_lists(base, vectors, within, lambda share: progress(0.7 + 0.3 * share))
        if refinement is not None:
            _reserve_codes(faiss, refinement, len(vectors))
            for rows in _blocks(vectors):
                refinement.add(np.ascontiguousarray(vectors[rows]))
            index.ntotal = base.ntotal
    elif isinstance(base, faiss.IndexHNSW | faiss.IndexNSG):
        # In one call: links are made once, at their full length, and NSG cannot be added to twice.
        index.add(np.ascontiguousarray(vectors))
    else:
        for part in (base, refinement):
            if part is not None:
                _reserve_codes(faiss, part, len(vectors))
        for rows in _blocks(vectors):
            index.add(np.ascontiguousarray(vectors[rows]))
            progress(rows.stop / len(vectors))
    progress(1.0)


def add_to_lists(
    index: Any, vectors: Vectors, within: Lists, progress: Progress = lambda _share: None
) -> None:
    """Add ``vectors`` to an index of plain lists, each to its list in ``within``."""
    faiss = require_faiss()
    lists = index.invlists
    for number, size in enumerate(np.bincount(within, minlength=index.nlist).tolist()):
        lists.resize(number, size)
        lists.resize(number, 0)  # the room stays
    for rows in _blocks(vectors):
        block = np.ascontiguousarray(vectors[rows])
        numbers = np.arange(rows.start, rows.stop, dtype=np.int64)
        lists_of_block = within[rows].astype(np.int64)
        index.add_core(len(block), *map(faiss.swig_ptr, (block, numbers, lists_of_block)))
        progress(rows.stop / len(vectors))


def _assigned(index: Any, vectors: Vectors, progress: Progress, threads: int) -> Lists:
    """The list of each row."""
    faiss = require_faiss()
    within = np.empty(len(vectors), dtype=np.int32)
    quantizer = faiss.downcast_index(index.quantizer)
    centroids = None
    if isinstance(quantizer, faiss.IndexFlat):
        kept = quantizer.reconstruct_n(0, quantizer.ntotal)
        centroids = Centroids(kept, _metric_of(faiss, quantizer), threads=threads)
    for rows in _blocks(vectors):
        if centroids is None:
            _, nearest = quantizer.search(np.ascontiguousarray(vectors[rows]), 1)
            within[rows] = nearest[:, 0]
        else:
            within[rows] = centroids.nearest(vectors[rows])
        progress(rows.stop / len(vectors))
    return within


def _blocks(vectors: Vectors) -> Iterator[slice]:
    """Slices that cover all rows, of a bounded number of bytes each; one is used up by the next."""
    count, dimension = vectors.shape
    step = max(_BLOCK_BYTES // (4 * dimension), _FEWEST_ROWS)
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        yield rows
        release_rows(vectors[rows])


def _reserve_codes(faiss: Any, part: Any, count: int) -> None:
    """Reserve room for ``count`` rows in an index that keeps one code after another."""
    part = faiss.downcast_index(part)
    if isinstance(part, faiss.IndexFlatCodes):
        part.codes.resize(count * part.code_size)
        part.codes.resize(0)


def _has_plain_lists(faiss: Any, index: Any) -> bool:
    """Whether its lists hold one code after another; fast-scan codes are packed in another way."""
    return isinstance(index, faiss.IndexIVF) and isinstance(
        faiss.downcast_InvertedLists(index.invlists), faiss.ArrayInvertedLists
    )


_TRIED_ROWS: Final = 100
_MAX_TRIED_DIMENSION: Final = 1024
_COARSE: Final = re.compile(r"IVF\d+(_HNSW\d+)?")
_PRINCIPAL: Final = re.compile(r"PCA[RW]?(\d+),")
_FAISS_PREFIX: Final = re.compile(r"Error: '.*' failed: ", re.DOTALL)


def try_factory(
    factory: Factory, *, dimension: int, metric: Metric, few_rows: bool = False
) -> None:
    """Make an empty index, or with ``few_rows`` one of a single list that is trained and searched.

    Some of what FAISS refuses it refuses only in training. The rows are few, so that this takes a
    second at most. What trains for long however few rows there are (codebooks, rotations, long
    vectors) is made and not trained.

    Raises:
        UnbuildableIndexError: FAISS cannot make the index of vectors of this length.
        MissingExtraError: FAISS is not installed.
    """
    faiss = require_faiss()
    components = _PRINCIPAL.match(factory.text)
    if components is not None and int(components[1]) > dimension:
        raise _unbuildable(
            factory, dimension, f"it cannot make {components[1]} dimensions of fewer"
        )
    slow = "OPQ" in factory.text or "RQ" in factory.text or factory.graph == "NSG"
    slow = slow or factory.code_bits > 0 or dimension > _MAX_TRIED_DIMENSION
    text = _COARSE.sub("IVF1", factory.text) if few_rows else factory.text
    try:
        with openmp_threads(1):
            index = faiss.index_factory(dimension, text, faiss_metric(metric))
            if few_rows and not slow:
                rows = np.random.default_rng(0).normal(size=(_TRIED_ROWS, dimension))
                rows = np.ascontiguousarray(rows, dtype=np.float32)
                if not index.is_trained:
                    index.train(rows)
                index.add(rows)
                index.search(rows[:1], 1)
    except RuntimeError as error:  # what every FAISS exception becomes
        reason = _FAISS_PREFIX.split(str(error))[-1].strip()
        raise _unbuildable(factory, dimension, reason) from error


def _unbuildable(factory: Factory, dimension: int, reason: str) -> UnbuildableIndexError:
    return UnbuildableIndexError(
        f"FAISS cannot make {factory.text} of vectors of length {dimension}: {reason}"
    )
