"""Looks at the releases all the time: ``python -m faults.watcher STORE``.

It reads every release file from the moment when it has its name, and the newest ones again and
again, as a reader would and as bytes. A line on standard input asks what it saw; the answer is one
line, and it goes on.
"""

import hashlib
import json
import select
import sys
from collections import Counter
from pathlib import Path

from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactStore

_AGAIN = 3
"""How many of the newest files are read again at every look: the ones that somebody might touch."""


class Watcher:
    """What one pair of eyes saw."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._folder = store.root / "releases"
        self._newest = 0
        self.looks = 0
        self.seen: dict[int, set[str]] = {}
        """By number: the digests of the file's bytes."""
        self.wrong: Counter[str] = Counter()

    def look(self) -> None:
        """Once at the files, and once through the store."""
        self.looks += 1
        for file in sorted(self._folder.iterdir(), reverse=True)[: _AGAIN + 1]:
            self._read(file)
        newest = self._store.newest_release()
        number = newest.number if newest is not None else 0
        if number < self._newest:
            self.wrong[f"the newest release went from {self._newest} to {number}"] += 1
        self._newest = max(self._newest, number)
        for broken in self._store.broken_releases.values():
            self.wrong[f"the store calls one broken: {broken}"] += 1

    def look_at_all(self) -> None:
        """Every file there is."""
        for file in self._folder.iterdir():
            self._read(file)

    def _read(self, file: Path) -> None:
        data = file.read_bytes()
        try:
            release = Release.model_validate_json(data)
        except ValueError as error:
            self.wrong[f"{file.name} is no release: {error}"] += 1
            return
        if not release.intact or file.name != f"{release.number:08d}.json":
            self.wrong[f"{file.name} is not whole"] += 1
        self.seen.setdefault(release.number, set()).add(hashlib.sha256(data).hexdigest())


def main() -> None:
    watcher = Watcher(ArtifactStore(Path(sys.argv[1])))
    while True:
        watcher.look()
        asked, _, _ = select.select([sys.stdin], [], [], 0)
        if not asked:
            continue
        if not sys.stdin.readline():
            return
        watcher.look_at_all()
        answer = {
            "looks": watcher.looks,
            "seen": {number: sorted(digests) for number, digests in watcher.seen.items()},
            "wrong": [f"{what} ({times} times)" for what, times in watcher.wrong.items()],
        }
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
