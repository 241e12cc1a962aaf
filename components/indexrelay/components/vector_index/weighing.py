"""What an index weighs in memory once all rows are in, from what FAISS made of its factory string.

Told to the build's memory limit before it is filled; an estimate from above, since a limit that is
met on the last row costs the whole build.
"""

from typing import Any, Final

from indexrelay.components.build_memory import BuildMemory
from indexrelay.components.optional import require_faiss

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
