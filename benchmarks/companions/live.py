"""A reader of a live collection that says when it had what, and how much memory live rows take.

``live.py FOLDER URL DIMENSION NAME INDEX``: as `measuring.installation.settings_in`.

Questions are ``do`` and what belongs to it:

- ``follow``: a reader starts, and waits until it serves and has no changes to fetch;
- ``seen`` (``generations``): when a query could see each, by the clock that all processes share;
- ``listen`` (``stream``): read a stream of Redis, one message after the other, beside that;
- ``heard`` (``count``): when so many messages of it had come;
- ``memory`` (``count``, ``dimension``): bytes that live rows of so many entries take, with their
  codes, and bytes of their vectors.
"""

import gc
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis import Redis

from indexrelay.components.live import rows as live_rows
from indexrelay.components.live.codes import (
    CodeSizes,
    LiveNeighbours,
    grow_codes,
)
from indexrelay.components.live.comparison import Comparison
from indexrelay.components.live.rows import LiveRows
from indexrelay.reloaders import Reloader
from indexrelay.schemas.messages import LiveStatus
from indexrelay.schemas.settings import Metric
from indexrelay.service.connections import give_large_memory_back_at_once
from indexrelay.storage.entries import Changes, Entries
from measuring.arrays import COLLECTION, drawn, entry_id
from measuring.companion_side import answering
from measuring.installation import settings_in
from measuring.machine import anonymous_bytes

_PATIENCE_SECONDS = 60.0
_BATCH = 100


class Watcher:
    """A reader, and what came of which generation when."""

    def __init__(self, folder: str, url: str, dimension: str, name: str, index: str) -> None:
        self._settings = settings_in(
            Path(folder), url, int(dimension), name=name, index=index, live=True
        )
        self._url = url
        self._reader: Reloader | None = None
        self._seen: dict[int, float] = {}
        self._heard: list[float] = []
        self._changed = threading.Condition()

    def follow(self) -> dict[str, Any]:
        append = LiveRows.append

        def stamped(rows: LiveRows, changes: Sequence[Changes], generation: int) -> None:
            append(rows, changes, generation)
            at = time.perf_counter()
            with self._changed:
                self._seen[generation] = at
                self._changed.notify_all()

        live_rows.LiveRows.append = stamped  # type: ignore[assignment, method-assign]
        self._reader = reader = Reloader(self._settings, reader_id="far")
        reader.start()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while reader.state.live[COLLECTION].status is not LiveStatus.FOLLOWING:
            if time.monotonic() > deadline:
                raise TimeoutError(f"it does not follow: {reader.state}")
            time.sleep(0.01)
        return {}

    def seen(self, generations: list[int]) -> dict[str, Any]:
        with self._changed:
            if not self._changed.wait_for(
                lambda: all(each in self._seen for each in generations), _PATIENCE_SECONDS
            ):
                raise TimeoutError("not all changes came")
            return {"at": [self._seen.pop(each) for each in generations]}

    def listen(self, stream: str) -> dict[str, Any]:
        client: Any = Redis.from_url(self._url)
        client.xadd(stream, {"event": b"first"})
        threading.Thread(target=self._listen, args=(client, stream), daemon=True).start()
        return {}

    def _listen(self, client: Any, stream: str) -> None:
        cursor = client.xinfo_stream(stream)["last-generated-id"]
        while True:
            for _, messages in client.xread({stream: cursor}, block=1000):
                at = time.perf_counter()
                cursor = messages[-1][0]
                with self._changed:
                    self._heard += [at] * len(messages)
                    self._changed.notify_all()

    def heard(self, count: int) -> dict[str, Any]:
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._heard) >= count, _PATIENCE_SECONDS):
                raise TimeoutError("not all messages came")
            heard, self._heard = self._heard, []
            return {"at": heard}

    def memory(self, count: int, dimension: int) -> dict[str, Any]:
        """What a process grows by that has as many already: these have loaded what is loaded once,
        and left what freed memory the C library keeps."""
        give_large_memory_back_at_once()
        others = _filled(count, dimension)
        gc.collect()
        before = anonymous_bytes(os.getpid())
        rows = _filled(count, dimension)
        gc.collect()
        return {
            "grown": anonymous_bytes(os.getpid()) - before,
            "vectors": 4 * dimension * rows.entries,
            "codes": rows.codes is not None and others.codes is not None,
        }

    def stop(self) -> None:
        if self._reader is not None:
            self._reader.stop()


def _filled(count: int, dimension: int) -> LiveRows:
    """Rows that came in batches, whose codes grew with them, and that were searched."""
    rows = LiveRows(epoch="e", floor=0, dimension=dimension, metric=Metric.L2)
    vectors = drawn(count, dimension)
    sizes = CodeSizes(first=100, step=128)
    for start in range(0, count, _BATCH):
        some = vectors[start : start + _BATCH]
        entries = Entries(
            ids=[entry_id(start + row) for row in range(len(some))],
            vectors=some,
            texts=[None] * len(some),
            payloads=[None] * len(some),
        )
        changes = [Changes(upserts=entries, deletes=[])]
        if not rows.has_room(changes):
            rows = rows.with_room(changes)
        rows.append(changes, rows.view.generation + 1)
        grow_codes(rows, rows.view.placed, sizes)
    near = LiveNeighbours(
        rows.view,
        Comparison(dimension, Metric.L2),
        alive=None,
        codes=rows.codes,
        min_recall=0.9,
    )
    for query in vectors[:100]:
        near.nearest(query, 10)
    return rows


def main() -> None:
    watcher = Watcher(*sys.argv[1:])
    does = {
        name: getattr(watcher, name) for name in ("follow", "seen", "listen", "heard", "memory")
    }
    try:
        answering(lambda do, **given: does[do](**given))
    finally:
        watcher.stop()


if __name__ == "__main__":
    main()
