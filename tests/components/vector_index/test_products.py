"""Products of matrices side by side: every piece once, and NumPy's threads as they were."""

import threading
from collections.abc import Iterator

import pytest

from indexrelay.components.vector_index import products
from indexrelay.components.vector_index.products import numpy_threads, side_by_side


class Library:
    """NumPy's, with a number of threads."""

    def __init__(self) -> None:
        self.threads = 4

    def read(self) -> int:
        return self.threads

    def write(self, threads: int) -> None:
        self.threads = threads


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr(products, "_numpys_threads", lambda: (library.read, library.write))
    return library


@pytest.mark.parametrize(("rooms", "threads"), [(1, 4), (3, 1)])
def test_each_piece_is_computed_once_and_several_threads_have_one_for_a_product(
    library: Library, rooms: int, threads: int
) -> None:
    taken: list[list[int]] = [[] for _ in range(rooms)]
    seen: set[int] = set()
    begun = threading.Barrier(rooms)

    def work(room: list[int], pieces: Iterator[int]) -> None:
        begun.wait(timeout=60)  # there is a thread for each
        for piece in pieces:
            seen.add(library.threads)
            room.append(piece)

    side_by_side(work, taken, range(1_000))
    assert sorted(piece for room in taken for piece in room) == list(range(1_000))
    assert seen == {threads}
    assert library.threads == 4


def test_what_one_thread_raises_is_raised_when_all_have_ended(library: Library) -> None:
    def work(room: str, pieces: Iterator[int]) -> None:
        for piece in pieces:
            if piece == 7:
                raise ZeroDivisionError(room)

    with pytest.raises(ZeroDivisionError):
        side_by_side(work, ["a", "b"], range(100))
    assert library.threads == 4


def test_of_several_limits_the_lowest_counts(library: Library) -> None:
    first, second = numpy_threads(3), numpy_threads(2)
    first.__enter__()
    second.__enter__()
    assert library.threads == 2
    first.__exit__(None, None, None)
    assert library.threads == 2
    second.__exit__(None, None, None)
    assert library.threads == 4


def test_the_library_of_numpy_is_found_and_set() -> None:
    found = products._numpys_threads()
    assert found is not None, "the wheel of NumPy brings OpenBLAS under another name than before"
    read, _ = found
    before = read()
    with numpy_threads(1):
        assert read() == 1
    assert read() == before
