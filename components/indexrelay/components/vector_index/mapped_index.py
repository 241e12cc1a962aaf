"""FAISS, and its files: opened by mapping them, their pages prefaulted and released.

Mapped pages belong to the kernel: every process of a host shares them, opening costs nothing, and
closing gives nothing back because nothing was taken. A mapped index is never changed (FAISS would
abort the process). Tables that FAISS would compute at opening are skipped: they would be memory of
each process's own, and the search is as fast without them.

A page that is in memory still has to be entered into the page table of each process that maps it,
at its first touch. For a new base that is tens of thousands of pages, and until they are in, most
queries touch some: where a process met a base of 256 MB for the first time, the p99 of the first
thousand queries was twice that of the next. Linux enters a whole range at once
(``MADV_POPULATE_READ``, since 5.14), beside running queries and without the interpreter's lock. It
reads what is not in memory, so it runs in pieces, for as long as it may take.

FAISS unmaps a file while it holds the interpreter's lock, and clearing the entries of 256 MB takes
7 to 10 ms, for which every query of the process would wait. So they are cleared before
(``MADV_DONTNEED``), without the lock; what is left to unmap then has no entries.

FAISS does not return where it maps a file; the kernel lists that for each process.
Elsewhere than on Linux prefaulting does nothing.
"""

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import CorruptFileError, of_faiss
from indexrelay.components.formats.string_table import Rows
from indexrelay.schemas.errors import require


@cache
def require_faiss() -> Any:
    """FAISS, which every reader and every builder of a vector index needs.

    Cached, because every query needs it.

    Raises:
        MissingExtraError: it is not installed; the message names the extra that brings it.
    """
    return require("faiss")


def open_index(path: Path) -> Any:
    """Map a FAISS index and return it as its own class.

    Raises:
        CorruptFileError: it holds no index that FAISS can read.
        OSError, MemoryError: it cannot be opened now.
    """
    faiss = require_faiss()
    flags = faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
    if not path.stat().st_size:
        raise CorruptFileError(path, "it is empty")
    try:
        return faiss.read_index(str(path), flags)
    except RuntimeError as error:  # what every FAISS exception becomes
        raise of_faiss(path, error) from error


def open_whole(path: Path, *, size: int, dimension: int, count: int) -> Any:
    """`open_index`, where the file must have ``size`` bytes and hold ``count`` vectors.

    FAISS maps a file that lacks its last bytes without an error.

    Raises:
        CorruptFileError: it is not what was written.
    """
    found = path.stat().st_size
    if found != size:
        raise CorruptFileError(path, f"it has {found} bytes, not {size}")
    index = open_index(path)
    if index.d != dimension or index.ntotal != count:
        raise CorruptFileError(path, f"it holds {index.ntotal} vectors of length {index.d}")
    return index


def is_mapped(index: Any) -> bool:
    """Whether the bulk of an index is in mapped pages.

    Not every type can: the four-bit codes of fast-scan lists and the graph of NSG are read into
    memory, and then every process has its own copy.
    """
    return all(_owns_nothing(part) for part in _bulky_parts(index))


def _bulky_parts(index: Any) -> list[Any]:
    """The parts that grow with the number of entries."""
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    match index:
        case faiss.IndexPreTransform():
            return _bulky_parts(index.index)
        case faiss.IndexRefine():
            return _bulky_parts(index.base_index) + _bulky_parts(index.refine_index)
        case faiss.IndexHNSW():
            return [index.hnsw.neighbors, *_bulky_parts(index.storage)]
        case faiss.IndexIVF():
            lists = faiss.downcast_InvertedLists(index.invlists)
            if not isinstance(lists, faiss.ArrayInvertedLists):
                return [None]
            return [lists.codes.at(place) for place in range(min(index.nlist, 1))]
        case _:
            return [getattr(index, "codes", None)]


def _owns_nothing(part: Any) -> bool:
    return part is not None and not getattr(part, "is_owned", True)


def rows_by_list(lists: Any) -> Iterator[tuple[int, Rows]]:
    """Of inverted lists: the number of each that is not empty, and the row numbers in it."""
    for number in range(lists.nlist):
        size = lists.list_size(number)
        if size:
            yield number, require_faiss().rev_swig_ptr(lists.get_ids(number), size)


_LINKS_AT_ONCE: Final = 4 << 20


@contextmanager
def led_around(index: Any, path: Path, rows: Rows) -> Iterator[bool]:
    """While it is open, no link of a graph leads to one of ``rows``; whether it is one.

    An entry of a graph finds itself, and its links lead to its neighbours: asked with entries, a
    graph of real embeddings finds 0.97 of what it should where it finds 0.92 for queries that it
    does not hold. So the links to ``rows`` are led to what these are linked with, as they might be
    had it been built without them, and are put back afterwards.

    ``index`` is mapped from ``path``, which is still the caller's own, and is not searched by
    others. Nothing is changed where the kernel does not say how the file is mapped.
    """
    graph = graph_in(index)
    ranges = list(_ranges(path)) if graph is not None and _MAPS.exists() else []
    if len(ranges) != 1 or graph.neighbors.is_owned:
        yield False
        return
    start = int(graph.neighbors.data()) - ranges[0][0]
    size = graph.neighbors.size()
    links = np.memmap(path, dtype=np.int32, mode="r+", offset=start, shape=(size,))
    at = _places_of(links, rows, count=index.ntotal)
    before = links[at]
    try:
        links[at] = _led_around(graph, links, at, rows)
        yield True
    finally:
        links[at] = before


def graph_in(index: Any) -> Any:
    """The links of an index that is a graph; ``None``: it is none."""
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    match index:
        case faiss.IndexPreTransform():
            return graph_in(index.index)
        case faiss.IndexRefine():
            return graph_in(index.base_index)
        case faiss.IndexHNSW():
            return index.hnsw
        case _:
            return None


def _places_of(links: NDArray[np.int32], rows: Rows, *, count: int) -> Rows:
    """Where ``links`` lead to one of ``rows``, which are some of ``count``."""
    wanted = np.zeros(count + 1, dtype=bool)  # the last is for no link, which is -1
    wanted[rows[rows >= 0]] = True
    starts = range(0, len(links), _LINKS_AT_ONCE)
    found = [np.flatnonzero(wanted[links[at : at + _LINKS_AT_ONCE]]) + at for at in starts]
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def _led_around(graph: Any, links: NDArray[np.int32], at: Rows, rows: Rows) -> Rows:
    """Where the links at ``at`` lead instead: those to one row evenly to what it is linked with.

    On upper levels, and where there is nothing else, a link leads to where it comes from, which a
    search takes for a row that it has seen.
    """
    offsets = require_faiss().vector_to_array(graph.offsets).astype(np.int64)
    instead = np.searchsorted(offsets, at, side="right") - 1
    width = graph.nb_neighbors(0)
    lowest = np.flatnonzero(at - offsets[instead] < width)
    left = links[at[lowest]].astype(np.int64)
    order = np.argsort(left, kind="stable")
    lowest, left = lowest[order], left[order]
    first = np.searchsorted(left, left, side="left")
    among = np.searchsorted(left, left, side="right") - first
    linked = links[offsets[left][:, None] + np.arange(width)]
    degree = (linked >= 0).sum(axis=1)
    rank = np.arange(len(left)) - first
    led = linked[np.arange(len(left)), rank * np.maximum(degree, 1) // among]
    fits = (led >= 0) & ~np.isin(led, rows)
    instead[lowest[fits]] = led[fits]
    return instead


_MAPS: Final = Path("/proc/self/maps")
_MADV_DONTNEED: Final = 4
_MADV_POPULATE_READ: Final = 22
_PIECE_BYTES: Final = 4 << 20
"""Entered in 0.3 ms from memory, and read in 40 ms from a disk of 100 MB/s."""


def prefault(path: Path, *, go_on: Callable[[], bool]) -> int:
    """Enter every page of ``path`` where this process maps it, and return how many bytes that were.

    ``go_on`` is called before each piece.
    """
    done = 0
    advise = _madvise()
    if advise is None:
        return done
    for start, end in _ranges(path):
        for place in range(start, end, _PIECE_BYTES):
            length = min(_PIECE_BYTES, end - place)
            if not go_on() or advise(place, length, _MADV_POPULATE_READ):
                return done
            done += length
    return done


def release_pages(path: Path) -> int:
    """Clear the page table entries of ``path``, which the caller maps, and return its bytes.

    A later read enters them again: the map is of a file that never changes. Where the file is
    mapped more than once nothing is cleared, and the result is 0: another thread may unmap its own
    map at any moment, and what the kernel puts at that address instead would read as zeros.
    """
    advise = _madvise()
    if advise is None:
        return 0
    ranges = list(_ranges(path))
    if len(ranges) != 1:
        return 0
    [(start, end)] = ranges
    return 0 if advise(start, end - start, _MADV_DONTNEED) else end - start


def release_rows(rows: NDArray[Any]) -> int:
    """Clear the page table entries of some rows of a mapped ``.npy`` file, and return their bytes.

    A build reads its vectors several times, and what it has read would count as its memory until
    the kernel needs the pages. They stay in the page cache, where a later read finds them. Of an
    array that is no map, or whose changes are not those of the file, nothing is cleared.
    """
    advise = _madvise()
    if advise is None or not isinstance(rows, np.memmap) or rows.mode not in ("r", "r+"):
        return 0
    if not rows.flags.c_contiguous:
        return 0
    page = mmap.PAGESIZE
    start = -(-rows.ctypes.data // page) * page
    length = (rows.ctypes.data + rows.nbytes) // page * page - start
    return length if length > 0 and not advise(start, length, _MADV_DONTNEED) else 0


@cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The call of the C library; ``None``: this is not Linux."""
    if not _MAPS.exists():
        return None
    call = ctypes.CDLL(None).madvise
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    call.restype = ctypes.c_int
    return call


def _ranges(path: Path) -> Iterator[tuple[int, int]]:
    """The maps of a file in this process: addresses of the first byte, and after the last."""
    file = path.stat()
    device = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}"
    inode = str(file.st_ino)
    for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        if inode not in line:
            continue  # most lines: splitting them would take as long as reading all
        addresses, mode, _offset, where, found, *_name = line.split(maxsplit=5)
        if found == inode and where == device and mode.startswith("r"):
            start, _, end = addresses.partition("-")
            yield int(start, 16), int(end, 16)
