"""Several at the same time, each on a thread of its own, and no error of theirs is lost."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def together(works: Sequence[Callable[[], Result]]) -> list[Result]:
    """Begin all at the same moment and wait for all; their results, in the order of ``works``.

    Raises:
        Exception: the first one's error.
    """
    begin = threading.Barrier(len(works))

    def run(work: Callable[[], Result]) -> Result:
        begin.wait(timeout=30)
        return work()

    with ThreadPoolExecutor(len(works)) as threads:
        return list(threads.map(run, works))
