"""OpenMP threads, by the calling thread: FAISS asks for the number at every call."""

from collections.abc import Iterator
from contextlib import contextmanager

from indexrelay.components.optional import require_faiss


@contextmanager
def openmp_threads(count: int) -> Iterator[None]:
    """Let FAISS use ``count`` threads for calls from this thread, and put the number back.

    With one, no OpenMP team is made at all: a query neither waits for others nor leaves threads
    behind that a later `fork` would lose.
    """
    faiss = require_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
