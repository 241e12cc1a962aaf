"""F11: each file of a release is cut, changed or removed, before it is loaded and while it serves.

Before: it is never loaded, the last good version serves (also in a reader that starts), and it is
built or written again. Afterwards: the scrub finds it.

First with readers that keep what they loaded in memory, whose history the checker judges. Then with
a real vector index, whose files are mapped, under ``indexrelay up``. There a truth is kept beside
it: what exact search finds among the entries of each generation. Every answer names its version and
is compared with that. Wrong ones are allowed as long as it takes to find the corruption, and none
after that; a reader that touches what is cut off dies, and has to be back on the newest whole
version.
"""

import hashlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from faults.bench import Bench
from faults.processes import Process
from faults.recorder import COLLECTION
from faults.rows import Row
from indexrelay.schemas.messages import LoadOutcome, ReaderState
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactStore

Corruption = Callable[[Path], None]


def truncate(path: Path) -> None:
    """Half of it is gone: what has mapped the file dies where it touches the other half."""
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Every 64th byte is another, in place: what has mapped the file sees that at once."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        content = bytearray(file.read())
        for position in range(len(content) // 2 % 64, len(content), 64):
            content[position] ^= 0x55
        file.seek(0)
        file.write(content)


def remove(path: Path) -> None:
    """Its name is gone; what has mapped the file keeps it."""
    path.unlink()


CORRUPTIONS: Mapping[str, Corruption] = {"truncated": truncate, "flipped": flip, "removed": remove}


def release_files(store: ArtifactStore, number: int) -> tuple[Path, Path]:
    """The two files of a release."""
    name = f"{number:08d}.json"
    return store.root / "releases" / name, store.root / "copies" / name


def manifest_file(store: ArtifactStore, component: str, version: str) -> Path:
    return store.root / "versions" / component / f"{version}.json"


def blob_files(store: ArtifactStore, component: str, version: str) -> dict[str, Path]:
    """The blobs of a version by their labels; its manifest must be there."""
    manifest = json.loads(manifest_file(store, component, version).read_bytes())
    return {
        label: store.root / "blobs" / "sha256" / ref["digest"][:2] / ref["digest"]
        for label, ref in sorted(manifest["files"].items())
    }


def is_whole(store: ArtifactStore) -> bool:
    """Whether each file of the newest release is what it should be."""
    newest = store.newest_release()
    if newest is None or store.next_number() != newest.number + 1:
        return False
    first, second = release_files(store, newest.number)
    try:
        return first.read_bytes() == second.read_bytes() and all(
            _is_version_whole(store, component, version)
            for component, version in newest.components.items()
        )
    except OSError:
        return False


def _is_version_whole(store: ArtifactStore, component: str, version: str) -> bool:
    return _digest(manifest_file(store, component, version)) == version and all(
        _digest(path) == path.name for path in blob_files(store, component, version).values()
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


REBUILT_SECONDS = 20.0
"""A look for touched files, a reconcile, a build and a reload, and before that the start of a
reader's process, which is most of it on a busy machine."""
START_SECONDS = 90.0
CASES = tuple(product(CORRUPTIONS.items(), ("before", "served")))
FILES: Mapping[str, Callable[[Bench, Release], Path]] = {
    "blob": lambda bench, newest: _blob(bench, newest, "left"),
    "manifest of left": lambda bench, newest: _manifest(bench, newest, "left"),
    "manifest of right": lambda bench, newest: _manifest(bench, newest, "right"),
    "release": lambda bench, newest: release_files(bench.store, newest.number)[0],
    "copy": lambda bench, newest: release_files(bench.store, newest.number)[1],
}


def corrupted(program: Path, row: Row, runs: int) -> None:
    """Each run corrupts every file once; six of them do so in every way.

    Of the maps' files, of which there are more, a run takes a third: 18 do so in every way.
    """
    with Bench(program) as bench:
        bench.bring_up(seconds=START_SECONDS)
        for number in range(runs):
            for offset, file in enumerate(FILES):
                (name, corrupt), moment = CASES[(number + offset) % len(CASES)]
                with row.run(f"{file} {name} {moment}, run {number}"):
                    _corrupt_once(bench, row, file, corrupt, before=moment == "before")
        row.broke(bench.violations())
    _corrupt_maps(program, row, runs)


def _corrupt_once(bench: Bench, row: Row, file: str, corrupt: Corruption, *, before: bool) -> None:
    readers = [bench.processes[name] for name in ("reader-1", "reader-2")]
    if before:
        readers[0].send(signal.SIGSTOP)  # it wakes up with a last good version
        readers[1].kill()  # it starts without
    try:
        generation = bench.commit().generation
        bench.wait(lambda: _released(bench) == generation and is_whole(bench.store))
        if not before:
            bench.settle()
        bench.recorder.watch()
        newest = bench.store.newest_release()
        assert newest is not None
        path = FILES[file](bench, newest)
        bench.recorder.corrupt.add(path)
        corrupt(path)
    finally:
        if before:
            readers[0].send(signal.SIGCONT)
            readers[1].start()
    corrupted_at = time.monotonic()
    bench.wait(lambda: is_whole(bench.store) and bench.settled() and _all_applied(bench))
    row.recovered(time.monotonic() - corrupted_at, within=REBUILT_SECONDS)


def _released(bench: Bench) -> int:
    """The generation that the newest release covers with everything."""
    newest = bench.store.newest_release()
    assert newest is not None
    return min(
        bench.store.version(name, version).covers[COLLECTION]
        for name, version in newest.components.items()
    )


def _all_applied(bench: Bench) -> bool:
    return all(
        component.version == component.wanted and component.outcome is not LoadOutcome.FAILED
        for state in bench.states().values()
        for component in state.components.values()
    )


def _blob(bench: Bench, newest: Release, component: str) -> Path:
    [path] = blob_files(bench.store, component, newest.components[component]).values()
    return path


def _manifest(bench: Bench, newest: Release, component: str) -> Path:
    return manifest_file(bench.store, component, newest.components[component])


COMPONENT = "similar"
_ASK_SECONDS = 0.02
_TIMEOUT_SECONDS = 5.0
_K = 10


@dataclass(frozen=True)
class Answer:
    """What one query got."""

    at: float
    query: int
    version: str | None = None
    ids: tuple[str, ...] = ()
    """Empty: there was none."""


@dataclass
class Truth:
    """The entries of each generation, and what is nearest among them."""

    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(11))
    vectors: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    counts: dict[int, int] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    """What each version covers, taken down before anything happens to it."""

    def __post_init__(self) -> None:
        self.queries = self.rng.random((50, 2), dtype=np.float32)

    def commit(self, bench: Bench, count: int) -> int:
        """Add entries; the generation that has them."""
        more = self.rng.random((count, 2), dtype=np.float32)
        ids = [str(row) for row in range(len(self.vectors), len(self.vectors) + count)]
        with bench.producer.batch(COLLECTION) as batch:
            batch.upsert(ids, more)
        self.vectors = np.concatenate([self.vectors, more])
        self.counts[batch.commit.generation] = len(self.vectors)
        return batch.commit.generation

    def is_right(self, answer: Answer) -> bool:
        """Whether the answer is what its version should find."""
        assert answer.version in self.generations, f"no release names {answer.version}"
        count = self.counts[self.generations[answer.version]]
        distances = ((self.vectors[:count] - self.queries[answer.query]) ** 2).sum(axis=1)
        nearest = np.sort(distances)[:_K]
        # A corrupt table of ids gives ids that no entry has.
        rows = [int(name) for name in answer.ids if name.isascii() and name.isdigit()]
        found = distances[[row for row in rows if row < count]]
        # By distance: two may be equally far.
        return len(found) == _K and bool(np.allclose(np.sort(found), nearest, atol=1e-6))


class Asker:
    """Asks the reader all the time, on a thread of its own."""

    def __init__(self, socket: Path, truth: Truth) -> None:
        self._socket = socket
        self._truth = truth
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asker")
        self.answers: list[Answer] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._done.is_set():
            with closing(_UnixConnection(self._socket)) as http:
                answered = True
                while answered and not self._done.wait(_ASK_SECONDS):
                    number = (number + 1) % len(self._truth.queries)
                    self.answers.append(self._ask(http, number))
                    answered = bool(self.answers[-1].ids)

    def _ask(self, http: HTTPConnection, number: int) -> Answer:
        body = json.dumps({"vector": self._truth.queries[number].tolist(), "k": _K})
        try:
            http.request(
                "POST",
                f"/v1/components/{COMPONENT}/search",
                body=body,
                headers={"Content-Type": "application/json"},
            )
            response = http.getresponse()
            body = json.loads(response.read())
        except (OSError, HTTPException, ValueError):
            return Answer(time.monotonic(), number)
        if response.status != HTTPStatus.OK:
            return Answer(time.monotonic(), number)
        ids = tuple(hit["id"] for hit in body["hits"])
        return Answer(time.monotonic(), number, body["version"], ids)


class _UnixConnection(HTTPConnection):
    """Over a unix socket; closed also where nothing listens."""

    def __init__(self, path: Path) -> None:
        super().__init__("reader", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(str(self._path))


READER = "reader-1"
BASE_ENTRIES, MORE_ENTRIES = 20_000, 200
"""So much that a map has many pages, and so little more that a build makes a delta."""
FOUND_SECONDS = 4.0
"""A look of the scrub, a wait of the reloading thread, and a busy machine."""
MAP_REBUILT_SECONDS = 45.0
"""A full build; and where the reader died more than once, the supervisor's longer pause."""


def _corrupt_maps(program: Path, row: Row, runs: int) -> None:
    """Each run corrupts a third of the files, each in another way; 18 corrupt all in all ways."""
    index = {"kind": "vector_index", "from": [COLLECTION], "index": "Flat"}
    for number in range(runs):
        with Bench(program, components={COMPONENT: index}) as bench, _up(bench):
            truth = Truth()
            truth.commit(bench, BASE_ENTRIES)
            bench.wait(lambda: _is_served(bench), seconds=90)
            _take_down(bench, truth)
            with Asker(bench.settings.data_dir / "sockets" / f"{READER}.sock", truth) as asker:
                _every_third_file(bench, row, truth, asker, number)


def _every_third_file(bench: Bench, row: Row, truth: Truth, asker: Asker, number: int) -> None:
    _release_more(bench, truth)
    corruptions = tuple(CORRUPTIONS.items())
    for turn, label in enumerate(list(_mapped_files(bench))[number % 3 :: 3], start=number // 3):
        name, corrupt = corruptions[turn % len(corruptions)]
        before = turn // len(corruptions) % 2 == 1
        with row.run(f"{label} {name} {'before' if before else 'mapped'}, run {number}"):
            pid = _state(bench).pid
            if before:
                os.kill(pid, signal.SIGSTOP)
            try:
                _release_more(bench, truth, served=not before)
                figures = _corrupt_mapped(
                    bench, row, truth, asker, label, corrupt, pid, kill=before
                )
            finally:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            row.figures.append(f"{label} {name} {'before' if before else 'mapped'}: {figures}")


def _release_more(bench: Bench, truth: Truth, *, served: bool = True) -> None:
    """Commit some entries, so that the newest release has a base and a delta."""
    generation = truth.commit(bench, MORE_ENTRIES)
    bench.wait(lambda: _covers(bench) == generation and is_whole(bench.store))
    if served:
        bench.wait(lambda: _is_served(bench))
    _take_down(bench, truth)


def _corrupt_mapped(
    bench: Bench,
    row: Row,
    truth: Truth,
    asker: Asker,
    label: str,
    corrupt: Corruption,
    pid: int,
    *,
    kill: bool,
) -> str:
    """What came of it, in figures."""
    first = len(asker.answers)
    corrupt(_mapped_files(bench)[label])
    corrupted_at = time.monotonic()
    if kill:
        os.kill(pid, signal.SIGKILL)  # a reader that starts has no last good version
    # An answer of the newest version: a query on the one before may still end the reader.
    bench.wait(lambda: is_whole(bench.store) and _is_served(bench) and _answers(bench, asker), 90)
    repaired_at = time.monotonic()
    bench.wait(lambda: _answered_since(asker, repaired_at) >= len(truth.queries))
    answers = asker.answers[first:]
    # Last: whoever found the damage asked for a build, and two of them make two versions.
    _take_down(bench, truth)
    wrong = [each.at for each in answers if each.ids and not truth.is_right(each)]
    silent = [each.at for each in answers if not each.ids]
    latest = max([each - corrupted_at for each in wrong], default=0.0)
    died = not kill and _state(bench).pid != pid
    assert not (kill and wrong), f"{len(wrong)} wrong answers from what was never whole"
    assert latest <= FOUND_SECONDS, f"a wrong answer {latest:.1f} s after the corruption"
    assert all(at <= repaired_at for at in silent), "queries fail although all is repaired"
    row.recovered(repaired_at - corrupted_at, within=MAP_REBUILT_SECONDS)
    return (
        f"{'died, ' if died else ''}{len(answers)} answers, {len(silent)} missing, "
        f"{len(wrong)} wrong, the last after {latest:.1f} s; repaired after "
        f"{repaired_at - corrupted_at:.1f} s"
    )


def _answers(bench: Bench, asker: Asker) -> bool:
    newest = bench.store.newest_release()
    return newest is not None and asker.answers[-1].version == newest.components[COMPONENT]


def _answered_since(asker: Asker, moment: float) -> int:
    return sum(1 for each in asker.answers[-200:] if each.at > moment)


def _mapped_files(bench: Bench) -> dict[str, Path]:
    """Every file of the newest release, by what it is."""
    newest = bench.store.newest_release()
    assert newest is not None
    version = newest.components[COMPONENT]
    release, copy = release_files(bench.store, newest.number)
    manifest = manifest_file(bench.store, COMPONENT, version)
    blobs = blob_files(bench.store, COMPONENT, version)
    return {**blobs, "manifest": manifest, "release": release, "copy": copy}


def _take_down(bench: Bench, truth: Truth) -> None:
    """Remember what every version covers."""
    for number in range(1, bench.store.next_number()):
        version = bench.store.release(number).components[COMPONENT]
        if version not in truth.generations:
            manifest = bench.store.version(COMPONENT, version)
            truth.generations[version] = manifest.covers[COLLECTION]


def _covers(bench: Bench) -> int:
    newest = bench.store.newest_release()
    assert newest is not None
    return bench.store.version(COMPONENT, newest.components[COMPONENT]).covers[COLLECTION]


def _state(bench: Bench) -> ReaderState:
    found: list[ReaderState] = []

    def there() -> bool:
        found[:] = [state for name, state in bench.states().items() if name == READER]
        return bool(found)

    bench.wait(there)
    return found[0]


def _is_served(bench: Bench) -> bool:
    """Whether the reader serves the newest release, and that covers everything."""
    newest = bench.store.newest_release()
    state = bench.states().get(READER)
    if newest is None or state is None or COMPONENT not in state.components:
        return False
    component = state.components[COMPONENT]
    generation = bench.catalog.collections.get(COLLECTION).generation
    return (
        state.ready
        and component.outcome is not LoadOutcome.FAILED
        and component.version == newest.components[COMPONENT]
        and component.covers[COLLECTION] == generation
    )


@contextmanager
def _up(bench: Bench) -> Iterator[None]:
    """Everything but the server, as a person starts it; ended as a person ends it."""
    up = Process(
        "up",
        "indexrelay.console.main",
        ["up", "--readers", "1", "--no-admin", "--config", bench.config],
        log=bench.folder / "logs" / "up.log",
        environ={},
    )
    up.start()
    try:
        yield
    finally:
        up.send(signal.SIGTERM)
        try:
            assert up.wait() == 0
        finally:
            up.kill()
