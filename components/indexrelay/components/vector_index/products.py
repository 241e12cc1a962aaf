"""Products of matrices, side by side on threads of our own, each of them on one.

NumPy's library computes one product on several threads, which meet at its end; what follows, up to
the next product, runs on one. Its threads sleep meanwhile, seventy times a second while rows are
assigned to lists. A thread that wakes may be put on any processor, and takes a slice of time there
(4 ms at 250 ticks a second), whatever its priority; queries feel that. So here each thread takes
one block after the other and does all that there is to do with it: nobody waits, and a million
assignments take a fifth less time.
"""

import ctypes
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Generic, TypeVar

import numpy as np

from indexrelay.components.vector_index.mapped_index import require_faiss

PieceT = TypeVar("PieceT")
RoomT = TypeVar("RoomT")


def threads_at_once() -> int:
    """How many threads `side_by_side` is worth: as many as FAISS may use here, or one."""
    return int(require_faiss().omp_get_max_threads()) if _numpys_threads() is not None else 1


def side_by_side(
    work: Callable[[RoomT, Iterator[PieceT]], object],
    rooms: Sequence[RoomT],
    pieces: Iterable[PieceT],
) -> None:
    """Call ``work`` with each of ``rooms``, on a thread for each, and wait for all of them.

    A single one is used on the thread that calls.

    Each call gets the same iterator over ``pieces``, which gives every piece to one of them. What
    the first call raises, if any does, is raised.
    """
    if len(rooms) == 1:
        work(rooms[0], iter(pieces))
        return
    shared = _Shared(pieces)
    with numpy_threads(1), ThreadPoolExecutor(len(rooms)) as pool:
        for done in [pool.submit(work, room, shared) for room in rooms]:
            done.result()


class _Shared(Generic[PieceT]):
    """An iterator that several threads may use."""

    def __init__(self, pieces: Iterable[PieceT]) -> None:
        self._pieces = iter(pieces)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[PieceT]:
        return self

    def __next__(self) -> PieceT:
        with self._lock:
            return next(self._pieces)


class numpy_threads:  # noqa: N801 - used like a function
    """Let NumPy compute a product of matrices on at most ``count`` threads, inside the ``with``.

    That holds for the whole process. Of several such limits the lowest counts, and what was there
    before the first of them is there again after the last.
    """

    _lock: ClassVar = threading.Lock()
    _limits: ClassVar[list[int]] = []
    _unlimited: ClassVar = 1

    def __init__(self, count: int) -> None:
        self._count = count

    def __enter__(self) -> None:
        self._change(self._limits.append)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._change(self._limits.remove)

    def _change(self, change: Callable[[int], None]) -> None:
        library = _numpys_threads()
        if library is None:
            return
        read, write = library
        with self._lock:
            if not self._limits:
                numpy_threads._unlimited = read()
            change(self._count)
            write(min(self._limits, default=self._unlimited))


@cache
def _numpys_threads() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """How many threads NumPy's library has, and how that is set; ``None``: it is not OpenBLAS.

    NumPy's wheels bring it, under names of their own, and it is loaded already. FAISS's copy, which
    goes by OpenMP, is another one.
    """
    for path in Path(np.__file__).parents[1].glob("numpy.libs/*openblas*"):
        library = ctypes.CDLL(str(path))
        for ending in ("64_", ""):
            read = getattr(library, f"scipy_openblas_get_num_threads{ending}", None)
            write = getattr(library, f"scipy_openblas_set_num_threads{ending}", None)
            if read is not None and write is not None:
                write.restype = None
                return read, write
    return None
