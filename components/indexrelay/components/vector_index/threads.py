"""OpenMP threads, by the calling thread: FAISS asks for the number at every call."""

from types import TracebackType
from typing import Any

from indexrelay.components.optional import require_faiss


class openmp_threads:  # noqa: N801 - used like a function; a generator would cost a query 2 µs
    """Let FAISS use ``count`` threads for calls from this thread, and put the number back.

    With one, no OpenMP team is made at all: a query neither waits for others nor leaves threads
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
