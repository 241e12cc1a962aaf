"""Follows one small batch from the job to an answer, and prints the files that it enters.

``python -m scripts.trip`` puts a producer, a rebuilder and a reader together in this process (Redis
is fakeredis, builds run inline), brings a first release about, and then traces a second batch of a
few entries: its commit, the pass that builds it, the reload, and one search. Printed are the files
of each portion in the order in which the batch first entered them, and its hops: how often the trip
went on in another file of that portion than the one that it was in. A stranger who follows a batch
through the code opens that many files, and changes that often from one to the next.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import argparse
import ast
import json
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import indexrelay
from indexrelay.schemas.settings import Settings
from indexrelay.testing import FakeClock
from indexrelay.testing.pipeline import Pipeline

_PORTIONS = [child for each in indexrelay.__path__ for child in Path(each).iterdir()]
_DIMENSION = 8
_ENTRIES = 200
_CHANGES = 5
_SETTINGS = {
    "collections": {"tracks": {"dimension": _DIMENSION}},
    "components": {"search": {"kind": "vector_index", "from": "tracks"}},
}


@dataclass
class Trip:
    """What was entered so far."""

    files: dict[str, None] = field(default_factory=dict)
    """PORTION/…/FILE.py, in the order in which each was first entered."""
    hops: Counter[str] = field(default_factory=Counter)
    """By portion: how often the trip went from one of its files to another of them."""
    _last: dict[str, str] = field(default_factory=dict)
    """The file of each portion that was entered last."""

    @contextmanager
    def trace(self) -> Iterator[None]:
        """Record what this thread, and every thread that it starts, enters."""
        threading.setprofile(self._enter)
        sys.setprofile(self._enter)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def portions(self) -> dict[str, list[str]]:
        """The files of each portion, portions and files in the order of the trip."""
        found: dict[str, list[str]] = {}
        for name in self.files:
            portion, _, rest = name.partition("/")
            found.setdefault(portion, []).append(rest)
        return found

    def _enter(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or (entered := _file(frame.f_code.co_filename)) is None:
            return
        self.files.setdefault(entered)
        portion = entered.partition("/")[0]
        self.hops[portion] += self._last.get(portion, entered) != entered
        self._last[portion] = entered


@cache
def _file(name: str) -> str | None:
    """The file as PORTION/…/FILE.py; ``None``: not ours, or one of the tools for tests."""
    path = Path(name)
    for portion in _PORTIONS:
        if path.is_relative_to(portion) and portion.name != "testing":
            return path.relative_to(portion.parent).as_posix()
    return None


def follow() -> Trip:
    """One small batch, traced from its commit to an answer that holds what it brought."""
    trip = Trip()
    draw = np.random.default_rng(7)
    vectors = draw.normal(size=(_ENTRIES + _CHANGES, _DIMENSION)).astype(np.float32)
    ids = [f"track-{number}" for number in range(len(vectors))]
    with tempfile.TemporaryDirectory(prefix="ir-trip-") as folder:
        pipeline = Pipeline(Settings.model_validate(_SETTINGS), Path(folder), clock=FakeClock())
        try:
            with pipeline.producer.batch("tracks", "first") as batch:
                batch.upsert(ids[:_ENTRIES], vectors[:_ENTRIES])
            reader = pipeline.reader("reader")
            pipeline.settle()
            with trip.trace():
                with pipeline.producer.batch("tracks", "second") as batch:
                    batch.upsert(ids[_ENTRIES:], vectors[_ENTRIES:])
                pipeline.rebuilder.step()
                reader.step()
                with reader.acquire() as snapshot:
                    [hit] = snapshot["search"].search(vectors[-1], k=1)
            if hit.id != ids[-1]:
                raise SystemExit(f"the batch did not arrive: {hit.id} was found for {ids[-1]}")
        finally:
            pipeline.close()
    return trip


def _markdown(portions: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A line for each file, with what it says that it is."""
    folders = {portion.name: portion for portion in _PORTIONS}
    for portion, files in portions.items():
        yield f"**{portion}**"
        yield ""
        for name in files:
            source = (folders[portion] / name).read_text(encoding="utf-8")
            said = ast.get_docstring(ast.parse(source)) or ""
            yield f"- `{name}`: {said.splitlines()[0]}"
        yield ""


def main() -> int:
    """Print the trip."""
    parser = argparse.ArgumentParser(prog="python -m scripts.trip", description=__doc__)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="one JSON object instead of the list")
    how.add_argument(
        "--markdown", action="store_true", help="with the first sentence of each file's docstring"
    )
    asked = parser.parse_args()
    trip = follow()
    portions = trip.portions()
    if asked.json:
        sys.stdout.write(json.dumps({"files": portions, "hops": trip.hops}, indent=2) + "\n")
        return 0
    if asked.markdown:
        sys.stdout.writelines(f"{line}\n" for line in _markdown(portions))
        return 0
    for portion, files in portions.items():
        sys.stdout.write(f"{portion}: {len(files)} files, {trip.hops[portion]} hops\n")
        for name in files:
            sys.stdout.write(f"    {name}\n")
    sys.stdout.write(f"{len(trip.files)} files in all\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
