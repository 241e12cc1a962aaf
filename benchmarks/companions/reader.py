"""A real reader that says when it swapped and what a query took.

``reader.py FOLDER URL SEED [QUERIES]``: queries are drawn by the seed, or those of a ``.npy``.

Questions are ``do`` and what belongs to it:

- ``served`` (``release``): wait until the release is in place; when that was, by the clock that all
  processes of a machine share, and how long the warm-up took;
- ``settled``: wait until what was served before is closed;
- ``ask`` (``count``): queries one after another;
- ``watch`` (``seconds``): queries for so long, each timed, while releases come as they may;
- ``hold``: the next swap is held in its middle; ``ask_held`` (``count``): queries while it is, and
  how many of them had to wait for it.

Queries are asked on the main thread. Where a query fails, the answer says so and goes on.
"""

import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from indexrelay.reloaders import Reloader
from indexrelay.reloaders.snapshot import Snapshot
from measuring.arrays import drawn
from measuring.companion_side import answering
from measuring.releasing import COMPONENT, reader_settings

PATIENCE_SECONDS = 60.0
HELD_SECONDS = 10.0
"""How long a swap is held at most; no query takes half as long by itself."""
QUERIES = 10_000


class Reader:
    """The reloader, and what its callbacks saw."""

    def __init__(self, folder: Path, url: str, seed: int, queries: str | None = None) -> None:
        self._queries = drawn(QUERIES, seed=seed) if queries is None else np.load(queries)
        self._next = 0
        self._swapped = threading.Condition()
        self._swaps: dict[int, tuple[float, float]] = {}
        self._left: Callable[[], object] = _nothing
        self._held = threading.Event()
        self._let_go = threading.Event()
        self._hold = False
        self._reloader = Reloader(
            reader_settings(folder, url),
            before_swap=[self._before_swap],
            after_swap=[self._after_swap],
        )
        self._reloader.start()

    def stop(self) -> None:
        self._reloader.stop()

    def served(self, release: int) -> dict[str, Any]:
        with self._swapped:
            if not self._swapped.wait_for(lambda: release in self._swaps, PATIENCE_SECONDS):
                raise TimeoutError(f"release {release} did not come: {self._reloader.state}")
            at, warm_up = self._swaps.pop(release)
        return {"at": at, "warm_up": warm_up}

    def settled(self) -> dict[str, Any]:
        with self._swapped:
            left = self._left
        deadline = time.monotonic() + PATIENCE_SECONDS
        while left() is not None:
            if time.monotonic() > deadline:
                raise TimeoutError("what was served before is still open")
            time.sleep(0.01)
        return {}

    def ask(self, count: int) -> dict[str, Any]:
        seconds, failed = [], 0
        for _ in range(count):
            began = time.perf_counter()
            failed += not self._query()
            seconds.append(time.perf_counter() - began)
        return {"failed": failed, **_quantiles(seconds)}

    def hold(self) -> dict[str, Any]:
        self._hold = True
        return {}

    def ask_held(self, count: int) -> dict[str, Any]:
        """A query that needs what the held swap has locked waits until the hold gives up."""
        if not self._held.wait(PATIENCE_SECONDS):
            raise TimeoutError("no release came that could be held")
        failed = waited = 0
        for _ in range(count):
            began = time.perf_counter()
            failed += not self._query()
            waited += time.perf_counter() - began > HELD_SECONDS / 2
        self._hold = False
        self._let_go.set()
        return {"failed": failed, "waited": waited}

    def watch(self, seconds: float) -> dict[str, Any]:
        gc.collect()
        with self._swapped:
            self._swaps.clear()
        took, failed = [], 0
        now = time.perf_counter()
        end = now + seconds
        while now < end:
            failed += not self._query()
            then, now = now, time.perf_counter()
            took.append(now - then)
        with self._swapped:
            swaps = len(self._swaps)
        return {"failed": failed, "asked": len(took), "swaps": swaps, **_quantiles(took)}

    def _query(self) -> bool:
        """Whether it was answered with ten hits."""
        query = self._queries[self._next % len(self._queries)]
        self._next += 1
        try:
            with self._reloader.acquire() as snapshot:
                return len(snapshot[COMPONENT].search(query, k=10)) == 10
        except Exception as error:  # noqa: BLE001 - it is counted, whatever it is
            sys.stderr.write(f"a query failed: {error!r}\n")
            return False

    def _before_swap(self, _old: Snapshot, _new: Snapshot) -> None:
        """Runs in the middle of a reload, with everything locked that a reload locks."""
        if self._hold:
            self._let_go.clear()
            self._held.set()
            self._let_go.wait(HELD_SECONDS)
            self._held.clear()

    def _after_swap(self, old: Snapshot, new: Snapshot) -> None:
        at = time.perf_counter()
        with self._swapped:
            self._left = weakref.ref(old[COMPONENT]) if COMPONENT in old else _nothing
            self._swaps[new.release] = (at, new[COMPONENT].warm_up_seconds)
            self._swapped.notify_all()


def _nothing() -> None:
    """Stands for a reference to something that is gone."""


def _quantiles(seconds: list[float]) -> dict[str, float]:
    taken = np.array(seconds)
    return {
        "median": float(np.quantile(taken, 0.5)),
        "p99": float(np.quantile(taken, 0.99)),
        "p999": float(np.quantile(taken, 0.999)),
        "longest": float(taken.max()),
    }


def main() -> None:
    folder, url, seed, *queries = sys.argv[1:]
    reader = Reader(Path(folder), url, int(seed), *queries)
    does = {
        name: getattr(reader, name)
        for name in ("served", "settled", "ask", "hold", "ask_held", "watch")
    }
    try:
        answering(lambda do, **given: does[do](**given))
    finally:
        reader.stop()


if __name__ == "__main__":
    main()
