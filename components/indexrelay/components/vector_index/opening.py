"""Opens a FAISS file by mapping it, and says what is inside.

Mapped pages belong to the kernel: every process of a host shares them, opening costs nothing, and
closing gives nothing back because nothing was taken. A mapped index must never be changed (FAISS
aborts the process); nobody here does. Tables that FAISS would compute at opening are skipped: they
are memory of each process's own, and the search is as fast without them.
"""

from pathlib import Path
from typing import Any

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.optional import require_faiss
from indexrelay.components.system_errors import of_faiss


def open_index(path: Path) -> Any:
    """Map a FAISS index and return it as its own class.

    Raises:
        DamagedFileError: it holds no index that FAISS can read.
        OSError, MemoryError: it cannot be opened now.
    """
    faiss = require_faiss()
    flags = faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
    if not path.stat().st_size:
        raise DamagedFileError(path, "it is empty")
    try:
        return faiss.read_index(str(path), flags)
    except RuntimeError as error:  # what every FAISS exception becomes
        raise of_faiss(path, error) from error


def open_whole(path: Path, *, size: int, dimension: int, count: int) -> Any:
    """`open_index`, where the file must have ``size`` bytes and hold ``count`` vectors.

    FAISS maps a file that lacks its last bytes without a word.

    Raises:
        DamagedFileError: it is not what was written.
    """
    found = path.stat().st_size
    if found != size:
        raise DamagedFileError(path, f"it has {found} bytes, not {size}")
    index = open_index(path)
    if index.d != dimension or index.ntotal != count:
        raise DamagedFileError(path, f"it holds {index.ntotal} vectors of length {index.d}")
    return index


def is_mapped(index: Any) -> bool:
    """Whether the bulk of an index lies in mapped pages.

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
