"""Builds one FAISS index: tried on a few rows, trained on a sample, filled block by block, written.

FAISS learns centroids and codebooks from a seeded sample, so that training costs what the number of
lists asks for and not what the collection weighs. The vectors themselves stay mapped. Beside the
index a build holds the rows that it trains on, and little else.

FAISS grows its arrays by doubling, and for a moment holds the old one and the new: up to three
times the index. Here the room is made first. Inverted lists are told how many rows each will get:
every row is assigned before any is added, which costs 4 bytes a row, and no time, since adding
assigns anyway. The build's memory limit is raised by an estimate of the index's size before it is
filled; an estimate from above, since a limit that is met on the last row costs the whole build.

Whether a factory string can be built at all is found on a few rows before anyone waits for it.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import UnbuildableIndexError
from indexrelay.components.kind import UNLIMITED, BuildMemory
from indexrelay.components.optional import require_faiss
from indexrelay.components.vector_index.factory import Factory
from indexrelay.components.vector_index.index_search import openmp_threads
from indexrelay.components.vector_index.metrics import faiss_metric
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

Lists = NDArray[np.signedinteger]
"""The inverted list of each row."""
_BLOCK_BYTES: Final = 16 * 1024 * 1024
"""What is looked at in one call: far beyond its overhead, and small beside an index."""
_FEWEST_ROWS: Final = 1024


def add_all(index: Any, vectors: Vectors, progress: Callable[[float], None]) -> None:
    """Add ``vectors``, shape ``(n, dimension)``, with their row numbers as ids.

    Blocks of a mapped array are handed to FAISS as they lie. ``progress`` hears shares up to 1.
    """
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    base = faiss.downcast_index(index.base_index) if _refines(faiss, index) else index
    if _has_plain_lists(faiss, base):
        within = _assigned(base, vectors, lambda share: progress(0.7 * share))
        add_to_lists(base, vectors, within, lambda share: progress(0.7 + 0.3 * share))
        if base is not index:
            _reserve_codes(faiss, index.refine_index, len(vectors))
            for rows in blocks(vectors):
                index.refine_index.add(np.ascontiguousarray(vectors[rows]))
            index.ntotal = base.ntotal
    elif isinstance(base, faiss.IndexHNSW | faiss.IndexNSG):
        # In one go: links are laid once, at their full length, and NSG cannot be added to twice.
        index.add(np.ascontiguousarray(vectors))
    else:
        for part in {base, getattr(index, "refine_index", base)}:
            _reserve_codes(faiss, part, len(vectors))
        for rows in blocks(vectors):
            index.add(np.ascontiguousarray(vectors[rows]))
            progress(rows.stop / len(vectors))
    progress(1.0)


def blocks(vectors: Vectors) -> Iterator[slice]:
    """Slices that cover all rows, of a bounded number of bytes each."""
    count, dimension = vectors.shape
    step = max(_BLOCK_BYTES // (4 * dimension), _FEWEST_ROWS)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def add_to_lists(
    index: Any,
    vectors: Vectors,
    within: Lists,
    progress: Callable[[float], None] = lambda _share: None,
) -> None:
    """Add ``vectors`` to an index of plain lists, each to the list of which ``within`` says so."""
    faiss = require_faiss()
    lists = index.invlists
    for place, size in enumerate(np.bincount(within, minlength=index.nlist).tolist()):
        lists.resize(place, size)
        lists.resize(place, 0)  # the room stays
    for rows in blocks(vectors):
        block = np.ascontiguousarray(vectors[rows])
        numbers = np.arange(rows.start, rows.stop, dtype=np.int64)
        places = within[rows].astype(np.int64)
        index.add_core(len(block), *map(faiss.swig_ptr, (block, numbers, places)))
        progress(rows.stop / len(vectors))


def _assigned(index: Any, vectors: Vectors, progress: Callable[[float], None]) -> Lists:
    """The list of each row."""
    within = np.empty(len(vectors), dtype=np.int32)
    for rows in blocks(vectors):
        _, nearest = index.quantizer.search(np.ascontiguousarray(vectors[rows]), 1)
        within[rows] = nearest[:, 0]
        progress(rows.stop / len(vectors))
    return within


def _reserve_codes(faiss: Any, part: Any, count: int) -> None:
    """Make room for ``count`` rows in an index that keeps one code after another."""
    part = faiss.downcast_index(part)
    if isinstance(part, faiss.IndexFlatCodes):
        part.codes.resize(count * part.code_size)
        part.codes.resize(0)


def _refines(faiss: Any, index: Any) -> bool:
    return isinstance(index, faiss.IndexRefine)


def _has_plain_lists(faiss: Any, index: Any) -> bool:
    """Lists of one code after another; fast-scan codes are packed in another way."""
    return isinstance(index, faiss.IndexIVF) and isinstance(
        faiss.downcast_InvertedLists(index.invlists), faiss.ArrayInvertedLists
    )


_ROW_NUMBER: Final = 8
_LIST: Final = 128
"""Of each list: its two arrays, and what the allocator keeps beside them."""
_LEVELS: Final = 20
"""Of each row in a graph: how high it stands, where its links begin, a lock while it is built."""
_TABLES: Final = 24
"""Of each row beside the index, while the version is written: where its id and its payload begin,
and its place in a list."""
_SLACK: Final = 1.03
"""What the allocator rounds up."""
_TRAINING_SHARE: Final = 0.25
"""Of the working memory, for rows to train on. FAISS may hold them twice: as residuals, too."""
_TRAINING_BYTES: Final = 512 * 1024 * 1024
"""… and never more: 40 rows for each of 16,384 lists at 128 dimensions are 336 MB. At 1536 it is
87,381 rows, which is what 2048 lists need."""


def trainable_rows(dimension: int, memory: BuildMemory) -> int:
    """How many rows may be trained on."""
    return memory.share(_TRAINING_SHARE, at_most=_TRAINING_BYTES) // (4 * dimension)


def version_bytes(index: Any, count: int) -> int:
    """Bytes of an index of ``count`` rows and of the tables beside it, while they are made."""
    return int(_SLACK * (index_bytes(index, count) + _TABLES * count))


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
            return coarse + count * (code_bytes + _ROW_NUMBER) + _LIST * lists
        case faiss.IndexHNSW():
            graph = index.hnsw
            links = 4 * int(graph.nb_neighbors(0)) + 4 * int(graph.nb_neighbors(1)) // 15
            return index_bytes(index.storage, count) + count * (links + _LEVELS)
        case faiss.IndexNSG():
            # Beside its links, those of the graph that it is cut out of.
            links = 4 * (int(index.nsg.R) + 2 * int(index.GK))
            return index_bytes(index.storage, count) + count * links
        case faiss.IndexFlatCodes():
            return count * int(index.code_size)
        case _:
            return 4 * count * int(index.d)


_ROUNDS: Final = 6
"""Of the k-means of inverted lists; FAISS's own ten cost more and save no comparison."""
_NSG_SEARCH: Final = 128
"""Candidates of an NSG search. It takes no parameters with a search, so this is fixed here."""


def build_base(
    path: Path,
    vectors: Vectors,
    metric: Metric,
    factory: Factory,
    *,
    seed: int,
    progress: Callable[[float], None],
    trained: Path | None = None,
    memory: BuildMemory = UNLIMITED,
) -> None:
    """Build ``factory`` over ``vectors`` (ids are row numbers) and write it to ``path``.

    ``trained`` is where the index is written before anything is added to it; ``None``: nowhere.
    ``memory`` is told what the index will hold, and bounds the rows that it is trained on.

    Raises:
        UnbuildableIndexError: FAISS refuses, for example because the codes do not divide the
            dimension.
    """
    faiss = require_faiss()
    count, dimension = vectors.shape
    try:
        index = faiss.index_factory(dimension, factory.text, faiss_metric(metric))
        _prepare(faiss, index, seed)
        memory.hold(version_bytes(index, count))
        if count and not index.is_trained:
            rows = min(factory.trained_rows, trainable_rows(dimension, memory))
            rows = max(rows, factory.needed_rows)  # whoever names so many lists wants them trained
            index.train(_training_rows(vectors, rows, seed))
        if trained is not None:
            faiss.write_index(index, str(trained))
        progress(0.4)
        if factory.graph == "NSG":
            faiss.downcast_index(index).nsg.search_L = _NSG_SEARCH
        if count:
            add_all(index, vectors, lambda share: progress(0.4 + 0.5 * share))
        faiss.write_index(index, str(path))
    except RuntimeError as error:  # what every FAISS exception becomes
        raise UnbuildableIndexError(
            f"FAISS cannot make {factory.text} over {count} vectors of length {dimension}: {error}"
        ) from error
    progress(1.0)


def _training_rows(vectors: Vectors, limit: int, seed: int) -> Vectors:
    count = len(vectors)
    if count <= limit:
        return np.ascontiguousarray(vectors)
    rows = np.random.default_rng(seed).choice(count, size=limit, replace=False)
    return np.ascontiguousarray(vectors[np.sort(rows)])


def _prepare(faiss: Any, index: Any, seed: int) -> None:
    """Start every k-means of the index from ``seed``; 1234 is what FAISS itself starts from."""
    index = faiss.downcast_index(index)
    match index:
        case faiss.IndexPreTransform():
            _prepare(faiss, index.index, seed)
        case faiss.IndexRefine():
            _prepare(faiss, index.base_index, seed)
        case faiss.IndexIVF():
            index.cp.seed = 1234 + seed
            index.cp.niter = _ROUNDS
            if isinstance(index, faiss.IndexIVFPQ):
                index.pq.cp.seed = 1234 + seed
        case faiss.IndexPQ():
            index.pq.cp.seed = 1234 + seed
        case _:
            pass  # no k-means in there, or one whose seed FAISS does not show


_ROWS: Final = 100
_TRAINED_DIMENSIONS: Final = 1024
_LISTS: Final = re.compile(r"IVF\d+(_HNSW\d+)?")
_REASON: Final = re.compile(r"Error: '.*' failed: ", re.DOTALL)
_PRINCIPAL: Final = re.compile(r"PCA[RW]?(\d+),")


def require_buildable(factory: Factory, *, dimension: int, metric: Metric) -> None:
    """Make the index, empty.

    Raises:
        UnbuildableIndexError: FAISS cannot make it of vectors of this length.
        MissingExtraError: FAISS is not installed.
    """
    _try(factory, dimension, metric)


def try_factory(factory: Factory, *, dimension: int, metric: Metric) -> None:
    """Make the index with one list, train it on a few rows, fill it and search it.

    Raises:
        UnbuildableIndexError, MissingExtraError: as `require_buildable`.
    """
    slow = "OPQ" in factory.text or "RQ" in factory.text or factory.graph == "NSG"
    trains = not slow and not factory.code_bits and dimension <= _TRAINED_DIMENSIONS
    _try(factory, dimension, metric, text=_LISTS.sub("IVF1", factory.text), trains=trains)


def _try(
    factory: Factory, dimension: int, metric: Metric, *, text: str = "", trains: bool = False
) -> None:
    """Make ``text``, which stands for ``factory``, and train it if that is wanted."""
    faiss = require_faiss()
    wide = _PRINCIPAL.match(factory.text)
    if wide is not None and int(wide[1]) > dimension:
        raise _unbuildable(factory, dimension, f"it cannot make {wide[1]} dimensions of fewer")
    try:
        with openmp_threads(1):
            index = faiss.index_factory(dimension, text or factory.text, faiss_metric(metric))
            if trains:
                rows = np.random.default_rng(0).normal(size=(_ROWS, dimension))
                rows = np.ascontiguousarray(rows, dtype=np.float32)
                if not index.is_trained:
                    index.train(rows)
                index.add(rows)
                index.search(rows[:1], 1)
    except RuntimeError as error:  # what every FAISS exception becomes
        reason = _REASON.split(str(error))[-1].strip()
        raise _unbuildable(factory, dimension, reason) from error


def _unbuildable(factory: Factory, dimension: int, reason: str) -> UnbuildableIndexError:
    return UnbuildableIndexError(
        f"FAISS cannot make {factory.text} of vectors of length {dimension}: {reason}"
    )
