"""A new version is warmed before it is served, by recent queries of the last one."""

from pathlib import Path

import numpy as np
import pytest

from indexrelay.components.vector_index import (
    VectorIndex,
    VectorIndexParameters,
    VectorSearch,
    search,
)
from tests.components.jobs import (
    MemorySnapshot,
    Row,
    Run,
    as_previous,
    clustered,
    make_job,
    make_snapshot,
    run,
)

VECTORS = clustered(500, 8)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[VectorSearch]:
    """The indexes that were searched, in order."""
    seen: list[VectorSearch] = []
    nearest = VectorSearch._nearest_to_one

    def spying(self: VectorSearch, *args: object) -> object:
        seen.append(self)
        return nearest(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(VectorSearch, "_nearest_to_one", spying)
    return seen


def _kind(index: str) -> VectorIndex:
    return VectorIndex(VectorIndexParameters(index=index))


def _built(kind: VectorIndex, folder: Path, snapshot: MemorySnapshot) -> Run:
    return run(kind, make_job(folder, snapshot))


def _served(kind: VectorIndex, done: Run, *, queries: int) -> VectorSearch:
    served = kind.load(done.files)
    for vector in VECTORS[:queries]:
        served.search(vector)
    return served


def _two(kind: VectorIndex, folder: Path) -> tuple[Run, Run]:
    """Two versions with bases of their own."""
    return (
        _built(kind, folder / "1", make_snapshot(VECTORS)),
        _built(kind, folder / "2", make_snapshot(VECTORS[::-1])),
    )


def test_a_new_base_on_disk_is_warmed_by_the_recent_queries_of_the_last_one(
    tmp_path: Path, asked: list[VectorSearch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "prefault", lambda _path, *, go_on: 4096 * go_on())
    kind = _kind("IVF8,Flat")
    first, second = _two(kind, tmp_path)
    last = _served(kind, first, queries=5)
    asked.clear()
    now = kind.reload(second.files, last)
    assert asked == [now] * 5
    for mine, given in zip(now.recent_queries, last.recent_queries, strict=True):
        np.testing.assert_array_equal(mine, given)
    assert now.warm_up_seconds > 0


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_one_query_warms_a_new_base_that_is_in_memory(
    tmp_path: Path, asked: list[VectorSearch]
) -> None:
    kind = _kind("IVF8,Flat")
    first, second = _two(kind, tmp_path)
    last = _served(kind, first, queries=5)
    asked.clear()
    now = kind.reload(second.files, last)
    assert asked == [now]
    assert len(now.recent_queries) == 5, "the version after it may lie on disk"


def test_one_query_warms_a_base_that_each_query_reads_in_full(
    tmp_path: Path, asked: list[VectorSearch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "prefault", lambda _path, *, go_on: 4096 * go_on())
    kind = _kind("Flat")
    first, second = _two(kind, tmp_path)
    last = _served(kind, first, queries=5)
    asked.clear()
    now = kind.reload(second.files, last)
    assert asked == [now]
    assert len(now.recent_queries) == 5, "the version after it may be of another type"


def test_one_query_warms_a_new_delta_beside_a_base_that_is_served(
    tmp_path: Path, asked: list[VectorSearch]
) -> None:
    kind = _kind("IVF8,Flat")
    source = make_snapshot(VECTORS)
    job = make_job(tmp_path / "1", source)
    first = run(kind, job)
    changed = source.commit({"e000007": Row(vector=VECTORS[8])})
    second = run(kind, make_job(tmp_path / "2", changed, previous=as_previous(job, first)))
    assert second.built.extends
    last = _served(kind, first, queries=5)
    asked.clear()
    now = kind.reload(second.files, last)
    assert now.contents.base is last.contents.base
    assert asked == [now]


def test_a_version_is_loaded_while_the_last_one_is_asked(tmp_path: Path) -> None:
    kind = _kind("Flat")
    done = _built(kind, tmp_path, make_snapshot(VECTORS))
    last = _served(kind, done, queries=3)

    class AskedMeanwhile:
        """A recent query; whoever looks at it is overtaken by one more."""

        def __getitem__(self, key: object) -> object:
            last.search(VECTORS[3])
            return VECTORS[0][key]

    last._recent.append(AskedMeanwhile())  # type: ignore[arg-type]
    assert len(last.recent_queries) == 4
