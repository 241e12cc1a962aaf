"""Pages of a mapped file are prefaulted before a query reads them, as far as there is time."""

import re
from pathlib import Path

import numpy as np
import pytest

from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters, version
from indexrelay.components.vector_index.index_build import add_all
from indexrelay.components.vector_index.mapped_index import (
    prefault,
    release_pages,
    release_rows,
    require_faiss,
)
from indexrelay.components.vector_index.version import BASE
from tests.components.jobs import clustered, make_job, make_snapshot, run

BYTES = 12 << 20

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")


def _resident(path: Path) -> int:
    """How many bytes of a file are in this process's page table."""
    found = 0
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a file of some length"
    path.write_bytes(bytes(BYTES))
    return path


def test_all_pages_of_a_mapped_file_are_prefaulted(file: Path) -> None:
    mapped = np.memmap(file, mode="r")
    assert _resident(file) < BYTES
    assert prefault(file, go_on=lambda: True) == BYTES
    assert _resident(file) == BYTES
    assert not mapped[:10].any()


def test_prefaulting_ends_when_there_is_no_more_time(file: Path) -> None:
    mapped = np.memmap(file, mode="r")
    answers = iter([True, False])
    entered = prefault(file, go_on=lambda: next(answers))
    assert 0 < entered < BYTES
    assert entered <= _resident(file) < BYTES
    assert not mapped[:10].any()


def test_released_pages_can_be_read_again(file: Path) -> None:
    mapped = np.memmap(file, mode="r")
    prefault(file, go_on=lambda: True)
    assert release_pages(file) == BYTES
    assert _resident(file) == 0
    assert not mapped[:10].any()
    assert _resident(file) > 0


def test_no_pages_are_released_where_another_map_of_the_file_may_end(file: Path) -> None:
    """Its address may be an array's by then, and clearing that would lose its content."""
    ours, theirs = np.memmap(file, mode="r"), np.memmap(file, mode="r")
    prefault(file, go_on=lambda: True)
    assert release_pages(file) == 0
    assert _resident(file) == 2 * BYTES
    assert not ours[:10].any()
    assert not theirs[:10].any()


def test_rows_that_were_written_are_released_and_read_again(file: Path) -> None:
    mapped = np.memmap(file, dtype=np.float32, mode="r+", shape=(BYTES // 4096, 1024))
    mapped[:] = np.arange(1024)
    assert _resident(file) == BYTES
    assert release_rows(mapped[10:20]) == 10 * 4096
    assert _resident(file) == BYTES - 10 * 4096
    np.testing.assert_array_equal(mapped, np.tile(np.arange(1024), (BYTES // 4096, 1)))


def test_rows_that_are_in_memory_alone_keep_their_content(file: Path) -> None:
    rows = np.ones((256, 1024), dtype=np.float32)
    assert release_rows(rows) == 0
    changed = np.memmap(file, dtype=np.float32, mode="c", shape=(BYTES // 4096, 1024))
    changed[:] = 1
    assert release_rows(changed) == 0
    mapped = np.memmap(file, dtype=np.float32, mode="r", shape=(BYTES // 4096, 1024))
    assert release_rows(mapped[:, :512]) == 0
    assert release_rows(np.asarray(mapped) + 1) == 0
    assert rows.all()
    assert changed.all()


def test_an_index_is_filled_without_keeping_what_was_read(tmp_path: Path) -> None:
    file = tmp_path / "vectors.npy"
    rows = clustered(40_000, 256)
    np.save(file, rows)
    vectors = np.load(file, mmap_mode="r")
    index = require_faiss().index_factory(256, "IVF4,Flat")
    index.train(rows[:1000])
    add_all(index, vectors, lambda _share: None)
    assert index.ntotal == len(rows)
    assert _resident(file) < rows.nbytes / 10


def test_nothing_is_prefaulted_of_a_file_that_is_not_mapped(file: Path) -> None:
    assert prefault(file, go_on=lambda: True) == 0


def test_a_base_is_prefaulted_when_it_is_loaded_and_released_when_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = VectorIndex(VectorIndexParameters(index="IVF64,Flat", nprobe=1, min_recall=0.0))
    done = run(kind, make_job(tmp_path, make_snapshot(clustered(4000, 64))))
    served = kind.load(done.files)
    size = done.files[BASE].stat().st_size
    assert _resident(done.files[BASE]) >= size
    left: list[Path] = []
    monkeypatch.setattr(version, "release_pages", left.append)
    served.close()
    assert left == [done.files[BASE]], "FAISS would unmap all of it under the interpreter's lock"
