"""A build holds the index that it makes, and `build_memory_bytes` beside it.

Built in a real child, under the kernel's own limit on private memory (RLIMIT_DATA), and watched
from outside: what it held at most must stay below the index and the working memory.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from pydantic import SecretStr

from indexrelay.rebuilder.builds import BuildRequest
from indexrelay.rebuilder.builds.runner import ForkingRunner
from indexrelay.schemas.messages import BuildOutcome, ComponentResult
from indexrelay.schemas.settings import CollectionSettings, ComponentDefinition, Metric
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import Entries
from tests.components.jobs import clustered
from tests.rebuilder.conftest import run
from tests.streams.polling import eventually

ROWS, DIMENSION = 100_000, 128
WORKING_BYTES = 40 * 1024 * 1024
"""Half of it is the database's cache. The index has 52 MB: held twice it would not fit."""


FEW = 10_000


@pytest.fixture(scope="module")
def catalog_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A catalog with many songs, and with few."""
    url = f"sqlite:///{tmp_path_factory.mktemp('catalog') / 'catalog.db'}"
    catalog = Catalog.open(url)
    vectors = clustered(ROWS, DIMENSION)
    for name, rows in (("songs", ROWS), ("few", FEW)):
        catalog.collections.declare(name, dimension=DIMENSION, metric=Metric.L2)
        chunks = [
            Entries(
                ids=[f"s{row:07d}" for row in range(start, start + 10_000)],
                vectors=vectors[start : start + 10_000],
                texts=[None] * 10_000,
                payloads=[None] * 10_000,
            )
            for start in range(0, rows, 10_000)
        ]
        catalog.entries.commit(name, "all", upserts=chunks, deletes=[])
    catalog.close()
    return url


@pytest.fixture(scope="module")
def runner() -> Iterator[ForkingRunner]:
    modules = ["faiss", "indexrelay.components.vector_index"]
    runner = ForkingRunner(preload=modules, threads=2, niceness=1)
    yield runner
    runner.stop()


@dataclass(frozen=True)
class Building:
    """Where a test builds, what from, and who does it."""

    catalog_url: str
    artifacts_dir: Path
    runner: ForkingRunner


@pytest.fixture
def building(catalog_url: str, tmp_path: Path, runner: ForkingRunner) -> Building:
    return Building(catalog_url, tmp_path, runner)


def build(building: Building, *, memory: int, of: str = "songs", **keys: Any) -> ComponentResult:
    workdir = building.artifacts_dir / f"work-{memory}"
    workdir.mkdir()
    request = BuildRequest(
        component="songs_index",
        definition=ComponentDefinition.of("vector_index", of, **keys),
        collections={of: CollectionSettings(dimension=DIMENSION, metric=Metric.L2)},
        parents={},
        previous=None,
        catalog_url=SecretStr(building.catalog_url),
        artifacts_dir=building.artifacts_dir,
        workdir=workdir,
        threads=2,
    )
    return run(building.runner, request, timeout=300, memory=memory)


@pytest.mark.parametrize(
    ("keys", "row_bytes"),
    [
        # Half as many lists as it would like: so much can be trained on.
        ({"index": "auto", "prefer": "build"}, 4 * DIMENSION + 8),
        ({"index": "Flat"}, 4 * DIMENSION),
        ({"index": "IVF256,SQ8,RFlat"}, 5 * DIMENSION + 8),
    ],
    ids=lambda case: case["index"] if isinstance(case, dict) else None,
)
def test_a_build_holds_its_index_once_and_little_beside_it(
    building: Building, keys: dict[str, str], row_bytes: int
) -> None:
    with Watched(building.runner) as watched:
        result = build(building, memory=WORKING_BYTES, **keys)
    assert result.outcome is BuildOutcome.REBUILT, result.error
    assert result.entries == ROWS
    held = watched.most_bytes - watched.first_bytes
    assert held < 1.03 * ROWS * (row_bytes + 24) + WORKING_BYTES
    # It was watched while it held the index; otherwise nothing is proved.
    assert held > ROWS * row_bytes


def test_a_child_has_the_niceness_of_the_settings(building: Building) -> None:
    with Watched(building.runner) as watched:
        build(building, of="few", memory=WORKING_BYTES, index="Flat")
    assert watched.niceness == os.nice(0) + 1


def test_builds_stand_back_behind_other_sessions(building: Building) -> None:
    building.runner.start()
    group = Path(f"/proc/{building.runner.server_pid}/autogroup")
    if not group.exists() or not group.read_text():
        pytest.skip("this kernel does not group processes by their session")
    build(building, of="few", memory=WORKING_BYTES, index="Flat")
    name, niceness = group.read_text().split(" nice ")
    assert name != Path("/proc/self/autogroup").read_text().split(" nice ")[0]
    assert int(niceness) == os.nice(0) + 1


def test_threads_that_wait_for_each_other_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
    runner = ForkingRunner(preload=[], threads=2)
    try:
        runner.start()
        environ = Path(f"/proc/{runner.server_pid}/environ")
        eventually(lambda: environ.read_bytes() != b"")  # empty until the program is in place
        given = environ.read_bytes().split(b"\0")
    finally:
        runner.stop()
    assert b"OMP_WAIT_POLICY=PASSIVE" in given
    assert b"OPENBLAS_THREAD_TIMEOUT=4" in given


class Watched:
    """Looks at a runner's child while it builds: its anonymous memory, and its niceness."""

    def __init__(self, runner: ForkingRunner) -> None:
        runner.start()
        self._server = runner.server_pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.first_bytes = 0
        self.most_bytes = 0
        self.niceness = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        children = Path(f"/proc/{self._server}/task/{self._server}/children")
        while not self._over.wait(0.002):
            for child in children.read_text().split():
                with suppress(OSError, StopIteration):  # it has just ended
                    self._look_at(Path("/proc") / child)

    def _look_at(self, child: Path) -> None:
        # A fork begins with what its parent has; the child itself may be seen too late for that.
        self.first_bytes = self.first_bytes or _anonymous_bytes(Path(f"/proc/{self._server}"))
        self.most_bytes = max(self.most_bytes, _anonymous_bytes(child))
        # Field 19 of proc(5)'s stat, counted behind the name, which may hold anything.
        self.niceness = int((child / "stat").read_text().rpartition(")")[2].split()[16])


def _anonymous_bytes(process: Path) -> int:
    lines = (process / "status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon:")))
