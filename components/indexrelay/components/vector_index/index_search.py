"""Searches one FAISS index, by the shortest way into FAISS and without changing it.

FAISS has a class of search parameters for each class of index, nested like the indexes themselves,
and refuses or ignores the wrong one. `search_parameters` builds the right one from an `Effort` and,
where the base has tombstones, a selector. They are passed with each search; the index itself, which
many threads share and which lies in mapped pages, is never changed.

FAISS's own Python wrapper checks and converts its arguments, 55,000 instructions for each query. A
query that was checked already goes past it. One query alone goes the shortest way (`one`, 23,000):
FAISS writes into arrays that are used again by the next query, and is given what SWIG's objects
stand for, not the objects, whose type it would look up each time.

FAISS releases the interpreter's lock while it searches, so any number of threads may search side by
side.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.formats.string_table import Rows
from indexrelay.components.vector_index.mapped_index import require_faiss, rows_by_list
from indexrelay.components.vector_index.spec import Effort
from indexrelay.storage.entries import Vectors

Found = tuple[NDArray[np.float32], Rows]
"""What FAISS measured and the rows it found, both of the shape ``(n, k)``, the nearest first; row
-1 where it found fewer."""


FoundByOne = tuple[NDArray[np.float32], Rows]
"""The same for one query, both of the shape ``(k,)``; nobody else has them."""


class _Answer:
    """What FAISS writes the answer to one query into."""

    __slots__ = ("found", "found_at", "k", "rows", "rows_at")

    def __init__(self, k: int, pointer: Callable[[Any], Any]) -> None:
        self.k = k
        self.found = np.empty(k, dtype=np.float32)
        self.rows = np.empty(k, dtype=np.int64)
        self.found_at, self.rows_at = pointer(self.found), pointer(self.rows)


class IndexSearch:
    """Searches one index; immutable, and safe to use from many threads."""

    __slots__ = (
        "_effort",
        "_idle",
        "_index",
        "_parameters",
        "_search",
        "_selector",
        "_swig_ptr",
        "_this",
        "_this_search",
    )

    def __init__(self, index: Any, effort: Effort, selector: Any = None) -> None:
        self._index = index
        self._effort = effort
        self._selector = selector
        self._parameters = search_parameters(index, effort, selector)
        self._search = index.search_c
        self._swig_ptr = require_faiss().swig_ptr
        self._this = (index.this, getattr(self._parameters, "this", None))
        self._this_search = type(index).search_c
        # Whoever asks takes one out, and puts it back: no two threads ever have the same.
        self._idle: deque[_Answer] = deque()

    def one(self, query: Vectors, k: int) -> FoundByOne:
        """`nearest`, to one query of the shape ``(dimension,)``."""
        answer = self.one_at_effort(query, k)
        return answer if answer[1].item(-1) >= 0 else by_one(self.nearest(query[None, :], k))

    def one_at_effort(self, query: Vectors, k: int) -> FoundByOne:
        """`nearest_at_effort`, to one query of the shape ``(dimension,)``."""
        pointer = self._swig_ptr
        try:
            answer = self._idle.pop()
            if answer.k != k:
                answer = _Answer(k, pointer)
        except IndexError:
            answer = _Answer(k, pointer)
        index, parameters = self._this
        self._this_search(index, 1, pointer(query), k, answer.found_at, answer.rows_at, parameters)
        found_by_one = answer.found.copy(), answer.rows.copy()
        self._idle.append(answer)
        return found_by_one

    def nearest(self, queries: Vectors, k: int) -> Found:
        """The ``k`` nearest rows to each query, with as much effort as so many need.

        ``queries``, of the shape ``(n, dimension)``, are float32, contiguous, finite and prepared;
        ``k`` is at least 1 and no more than there are rows to find.
        """
        found, rows = self.nearest_at_effort(queries, k)
        if not missing(rows):
            return found, rows
        # The effort is tuned for ten hits; what it searches may hold fewer than a larger k.
        for effort in efforts_beyond(self._index, self._effort):
            parameters = search_parameters(self._index, effort, self._selector)
            found, rows = self._searched(queries, k, parameters)
            if not missing(rows):
                break
        return found, rows

    def nearest_at_effort(self, queries: Vectors, k: int) -> Found:
        """As `nearest`, with the tuned effort and no more: rows may be missing."""
        return self._searched(queries, k, self._parameters)

    def _searched(self, queries: Vectors, k: int, parameters: Any) -> Found:
        count = len(queries)
        found = np.empty((count, k), dtype=np.float32)
        rows = np.empty((count, k), dtype=np.int64)
        pointer = self._swig_ptr
        self._search(count, pointer(queries), k, pointer(found), pointer(rows), parameters)
        return found, rows


def by_one(found: Found) -> FoundByOne:
    """The answer to the only query of ``found``."""
    return found[0][0], found[1][0]


def missing(rows: Rows) -> bool:
    """Whether any query has fewer than ``k`` rows; a missing row (-1) comes last."""
    # FAISS has put all code out of the caches, and this takes less of it than a reduction.
    return min(rows[:, -1].tolist(), default=0) < 0


_SHARING: Final = ("IndexIVFFlat", "IndexIVFScalarQuantizer", "IndexIVFPQ")
"""Types whose search is the coarse one and then that of the lists, and nothing else."""


def share_lists(base: Any, delta: Any) -> bool:
    """Whether both are searched list by list, and by the same lists."""
    return type(base).__name__ in _SHARING and type(delta) is type(base)


def lists_of_rows(index: Any) -> Rows:
    """The list that each row of an index of inverted lists is in, shape ``(rows,)``."""
    lists = np.empty(index.ntotal, dtype=np.int64)
    for number, rows in rows_by_list(index.invlists):
        lists[rows] = number
    return lists


class SharedLists:
    """Searches base and delta of inverted lists, with one comparison of the query to the centroids.

    A delta of many rows is a copy of the trained index, so its centroids are those of the base, and
    a query is in the same lists of both. Finding them takes a third of a query's time among 4,096;
    the second index then costs 5 microseconds instead of 60. Immutable, and safe to use from many
    threads.
    """

    __slots__ = ("_base", "_coarse", "_delta", "_nprobe", "_quantizer", "_swig_ptr")

    def __init__(self, base: Any, delta: Any, effort: Effort, selector: Any) -> None:
        self._nprobe = min(effort.nprobe or 1, base.nlist)
        self._quantizer = require_faiss().downcast_index(base.quantizer)
        self._coarse = coarse_parameters(base, effort)
        self._base = (base, search_parameters(base, effort, selector))
        self._delta = (delta, search_parameters(delta, effort))
        self._swig_ptr = require_faiss().swig_ptr

    def nearest(self, queries: Vectors, in_base: int, in_delta: int) -> tuple[Found, Found]:
        """The ``in_base`` nearest rows of the base, and the ``in_delta`` nearest of the delta.

        Rows may be missing, as in `IndexSearch.nearest_at_effort`.
        """
        count, pointer = len(queries), self._swig_ptr
        far = np.empty((count, self._nprobe), dtype=np.float32)
        lists = np.empty((count, self._nprobe), dtype=np.int64)
        self._quantizer.search_c(
            count, pointer(queries), self._nprobe, pointer(far), pointer(lists), self._coarse
        )
        answers = []
        for (index, parameters), k in ((self._base, in_base), (self._delta, in_delta)):
            found = np.empty((count, k), dtype=np.float32)
            rows = np.empty((count, k), dtype=np.int64)
            index.search_preassigned_c(
                count,
                pointer(queries),
                k,
                pointer(lists),
                pointer(far),
                pointer(found),
                pointer(rows),
                False,
                parameters,
            )
            answers.append((found, rows))
        return answers[0], answers[1]


def search_parameters(index: Any, effort: Effort, selector: Any = None) -> Any:
    """FAISS's parameters for this index; ``None`` where it takes none.

    They may be used by many threads at a time, and keep alive what they refer to. ``selector``, a
    ``faiss.IDSelector``, says which rows may be found; ``None``: all.
    """
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    chosen = {} if selector is None else {"sel": selector}
    match index:
        case faiss.IndexPreTransform():
            inner = search_parameters(index.index, effort, selector)
            return inner and faiss.SearchParametersPreTransform(index_params=inner)
        case faiss.IndexRefine():
            inner = search_parameters(index.base_index, effort, selector)
            within = {} if inner is None else {"base_index_params": inner}
            return faiss.IndexRefineSearchParameters(k_factor=float(effort.k_factor or 1), **within)
        case faiss.IndexIVF():
            coarse = coarse_parameters(index, effort)
            within = {} if coarse is None else {"quantizer_params": coarse}
            return _lists_class(faiss, index)(nprobe=effort.nprobe or 1, **within, **chosen)
        case faiss.IndexHNSW():
            return faiss.SearchParametersHNSW(efSearch=effort.ef_search or 1, **chosen)
        case _:
            return faiss.SearchParameters(**chosen) if chosen else None


def coarse_parameters(index: Any, effort: Effort) -> Any:
    """The parameters with which inverted lists find their lists; ``None``: none."""
    # A coarse graph returns no more lists than it keeps candidates.
    ef_search = max(2 * (effort.nprobe or 1), 16)
    return search_parameters(index.quantizer, Effort(ef_search=ef_search))


def _lists_class(faiss: Any, index: Any) -> Any:
    match index:
        case faiss.IndexIVFPQ():
            return faiss.IVFPQSearchParameters
        case faiss.IndexIVFRaBitQ():
            return faiss.IVFRaBitQSearchParameters
        case _:
            return faiss.SearchParametersIVF


_FEWEST_CANDIDATES: Final = 8
"""FAISS keeps at least ``k`` candidates, whatever ``efSearch`` is."""


@dataclass(frozen=True, slots=True)
class Knob:
    """The one number of an `Effort` that trades time for recall."""

    name: str
    """``nprobe`` or ``ef_search``."""
    fewest: int
    """Below this it changes nothing."""
    most: int
    """Beyond this there is nothing to gain."""


def knob_of(index: Any) -> Knob | None:
    """What this index can be tuned by; ``None``: nothing."""
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    match index:
        case faiss.IndexPreTransform():
            return knob_of(index.index)
        case faiss.IndexRefine():
            return knob_of(index.base_index)
        case faiss.IndexIVF():
            return Knob("nprobe", 1, index.nlist)
        case faiss.IndexHNSW():
            return Knob("ef_search", _FEWEST_CANDIDATES, max(index.ntotal, _FEWEST_CANDIDATES))
        case _:
            return None


def is_graph(index: Any) -> bool:
    """Whether its search follows the links of a graph, and can be tuned."""
    knob = knob_of(index)
    return knob is not None and knob.name == "ef_search"


def efforts_beyond(index: Any, effort: Effort) -> Iterator[Effort]:
    """Twice the effort, and twice again, up to the most that makes a difference."""
    knob = knob_of(index)
    value = getattr(effort, knob.name) or 1 if knob else 1
    while knob is not None and value < knob.most:
        value = min(2 * value, knob.most)
        yield effort.model_copy(update={knob.name: value})


def selector_around(tombstones: Rows, *, rows: int) -> Any:
    """A ``faiss.IDSelector`` of all of ``rows`` rows but these; ``None`` where there are none.

    It has one bit for each row of the base: 125 kB for a million rows.
    """
    if not len(tombstones):
        return None
    faiss = require_faiss()
    dead = np.zeros(-(-rows // 8), dtype=np.uint8)
    np.bitwise_or.at(dead, tombstones >> 3, (1 << (tombstones & 7)).astype(np.uint8))
    return faiss.IDSelectorNot(faiss.IDSelectorBitmap(dead))


def selector_of(bits: NDArray[np.uint8]) -> Any:
    """A ``faiss.IDSelector`` of the rows whose bits are set, the least significant first."""
    return require_faiss().IDSelectorBitmap(bits)


def refusal(index: Any, effort: Effort, query: Vectors) -> str:
    """Why ``index`` cannot be searched around tombstones; empty: it can.

    Some types refuse a selector, and some ignore it. So the row nearest to ``query``, of the shape
    ``(1, dimension)``, is left out in a second search.
    """
    if index.ntotal < 2:
        return "there are too few rows to try"
    _, first = IndexSearch(index, effort).nearest(query, 1)
    try:
        around = selector_around(first[0], rows=index.ntotal)
        _, second = IndexSearch(index, effort, around).nearest(query, 1)
    except RuntimeError as error:  # what every FAISS exception becomes
        return f"FAISS refuses to leave rows out: {str(error).splitlines()[-1].strip()}"
    return "it returns rows that a selector leaves out" if first[0, 0] == second[0, 0] else ""


class openmp_threads:  # noqa: N801 - used like a function; a generator would cost a query 2 µs
    """Let FAISS use ``count`` threads for calls from this thread, and restore the number.

    With one, OpenMP makes no team at all: a query neither waits for others nor leaves threads
    behind that a later `fork` would lose.
    """

    __slots__ = ("_before", "_count", "_faiss")

    def __init__(self, count: int) -> None:
        self._faiss: Any = require_faiss()
        self._count = count
        self._before = count

    def __enter__(self) -> None:
        self._before = self._faiss.omp_get_max_threads()
        if self._before != self._count:
            self._faiss.omp_set_num_threads(self._count)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before != self._count:
            self._faiss.omp_set_num_threads(self._before)
