"""Builds in a process of its own, as a rebuilder's child runs them: ``builder.py FOLDER URL``.

It has the session, the niceness, the threads and the OpenMP settings of such a child, and runs the
gates. The first question says what it builds, until the process ends:

- ``full`` (``index``, ``rows``): one full build after the other, into a store that nobody reads;
- ``deltas`` (``version``, ``rows``, ``lists``): five times a second a batch of a few entries on top
  of that version, built, released and announced to the readers of FOLDER.

The answer comes when the first full build has begun, or the first delta is released. ``done`` says
how many builds were finished since it was asked last.
"""

import os
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexrelay.rebuilder.builds.process import group_stands_back
from indexrelay.schemas.settings import RebuilderSettings
from measuring.arrays import ArrayCollection, drawn
from measuring.companion_side import answering
from measuring.releasing import Publisher

PER_SECOND: Final = 5
BATCH: Final = 20
"""Entries that each batch changes."""
LIMITS: Final = RebuilderSettings()


class Builder:
    """Builds on a thread of its own, until the process ends."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        self._done = 0
        self._first = threading.Event()
        """The first build is done, or failed."""
        self._wrong: BaseException | None = None

    def full(self, index: str, rows: int) -> dict[str, Any]:
        source = ArrayCollection(vectors=drawn(rows))
        self._begin(lambda: self._build_in_full(source, index))
        return {}

    def deltas(self, version: str, rows: int, lists: int) -> dict[str, Any]:
        publisher = Publisher(self._folder, self._url)
        source = changed_base(rows)
        self._begin(lambda: self._build_deltas(publisher, source, version, lists))
        self._first.wait()  # it opens the base
        return {}

    def done(self) -> dict[str, Any]:
        if self._wrong is not None:
            raise self._wrong
        done, self._done = self._done, 0
        return {"done": done}

    def _begin(self, work: Any) -> None:
        begun = threading.Event()

        def run() -> None:
            begun.set()
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - `done` raises it
                self._wrong = error
                self._first.set()

        threading.Thread(target=run, daemon=True).start()
        begun.wait()

    def _build_in_full(self, source: ArrayCollection, index: str) -> None:
        while True:
            # A store that grew with each build would fill the disk.
            with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                publisher = Publisher(Path(folder), self._url)
                publisher.build(source, threads=LIMITS.build_threads, gates=True, index=index)
                publisher.close()
            self._done += 1

    def _build_deltas(
        self, publisher: Publisher, source: ArrayCollection, version: str, lists: int
    ) -> None:
        last, began, number = publisher.stored(version), time.monotonic(), 0
        rng = np.random.default_rng(1)
        while True:
            number += 1
            time.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
            rows = np.sort(rng.choice(source.count, size=BATCH, replace=False))
            source.vectors[rows] += rng.normal(scale=0.1, size=(BATCH, source.dimension)).astype(
                np.float32
            )
            generation = source.generation + 1
            touched = {**dict(source.changed), **dict.fromkeys(rows.tolist(), generation)}
            source = replace(source, generation=generation, changed=tuple(sorted(touched.items())))
            last = publisher.build(
                source,
                previous=last,
                threads=LIMITS.build_threads,
                gates=True,
                **lists_of(lists),
            )
            publisher.announce(publisher.commit(last))
            self._done += 1
            self._first.set()


def changed_base(rows: int) -> ArrayCollection:
    """What `swap` builds its last base from, and the first delta upon it."""
    source = ArrayCollection(vectors=np.roll(drawn(rows), 1, axis=0))
    return source.with_changes(rows // 100, seed=0)


def lists_of(lists: int) -> dict[str, Any]:
    """The parameters of the index that `swap` serves."""
    return {"index": f"IVF{lists},Flat", "nprobe": 16}


def main() -> None:
    folder, url = sys.argv[1:]
    os.setsid()
    group_stands_back(LIMITS.build_niceness)
    os.nice(LIMITS.build_niceness)
    builder = Builder(Path(folder), url)
    does = {name: getattr(builder, name) for name in ("full", "deltas", "done")}
    answering(lambda do, **given: does[do](**given))
    os._exit(0)  # what it builds is not waited for


if __name__ == "__main__":
    main()
