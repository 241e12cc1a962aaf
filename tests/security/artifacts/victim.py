"""A reader that is brought one hostile version after another.

``python -m tests.security.artifacts.victim NAME,… SEED COUNT [NUMBER]``.

For each it prints a line of JSON: what was done, what came of it, and how long that took. It is a
process of its own, since what it is tried for is that it neither ends nor hangs.
"""

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.text_index import search as text_search
from indexrelay.reloaders import sandbox
from indexrelay.reloaders.loader import Opener
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.versions import BlobRef, VersionManifest
from indexrelay.storage.artifacts import ArtifactStore
from tests.security.artifacts.mutations import mutated
from tests.security.artifacts.versions import Version, ask, make

SANDBOX_SECONDS = 5.0
QUERY_SECONDS = 2.0


class Victim:
    """A store that anybody may write to, and who reads from it."""

    def __init__(self, folder: Path, version: Version) -> None:
        self._store = ArtifactStore(folder / "store")
        self._opener = Opener(self._store, definitions={}, clock=SystemClock())
        self._version = version
        self._folder = folder
        self._put: dict[bytes, BlobRef] = {}

    def meet(self, files: dict[str, bytes]) -> str:
        """Open and ask a version of these files; in a word, what came of it."""
        manifest = VersionManifest(
            component="victim",
            kind=self._version.kind,
            definition="0" * 64,
            parameters=self._version.parameters,
            covers={},
            epochs={},
            files={label: self._blob(content) for label, content in files.items()},
            entries=1,
            created_at=datetime.now(UTC),
        )
        version = self._store.put_version(manifest)
        try:
            served = self._opener.open("victim", version, serving=None)
        except CorruptFileError as error:
            return f"corrupt: {error.reason[:60]}"
        try:
            ask(self._version.name, served.value)
        except CorruptFileError as error:
            return f"corrupt when asked: {error.reason[:60]}"
        return "answered"

    def _blob(self, content: bytes) -> BlobRef:
        if content not in self._put:
            file = self._folder / "blob"
            file.write_bytes(content)
            self._put = {**dict(list(self._put.items())[-20:]), content: self._store.put_blob(file)}
        return self._put[content]


def main(names: list[str], seed: int, count: int, *, only: int | None = None) -> None:
    """Meet ``count`` of each name, or the one of that number."""
    os.fsync = lambda _: None  # type: ignore[assignment] # nobody cuts the power
    setattr(sandbox, "SECONDS", SANDBOX_SECONDS)  # noqa: B010 - it is final for everybody else
    setattr(text_search, "QUERY_SECONDS", QUERY_SECONDS)  # noqa: B010 - as above
    for name in names:
        with tempfile.TemporaryDirectory(prefix="victim-") as place:
            _meet_all(Path(place), name, seed, range(count) if only is None else (only,))


def _meet_all(folder: Path, name: str, seed: int, numbers: Sequence[int]) -> None:
    version = make(name, folder / "work")
    victim = Victim(folder, version)
    good = victim.meet(dict(version.files))
    if good != "answered":
        raise SystemExit(f"the good {name} is not served: {good}")
    for number in numbers:
        how, files = mutated(version.files, random.Random(f"{name} {seed} {number}"))
        _say(name=name, number=number, how=how)
        started = time.monotonic()
        try:
            outcome = victim.meet(files)
        except BaseException as error:
            if len(numbers) == 1:
                raise
            outcome = f"raised: {type(error).__name__}: {str(error)[:200]}"
        seconds = round(time.monotonic() - started, 3)
        _say(name=name, number=number, outcome=outcome, seconds=seconds)


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(
        sys.argv[1].split(","),
        int(sys.argv[2]),
        int(sys.argv[3]),
        only=int(sys.argv[4]) if len(sys.argv) > 4 else None,
    )
