"""A release lies there twice: whatever happens to one of its files, it is still whole."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from indexrelay.storage.artifacts import ArtifactStore, ReleaseUnreadableError
from indexrelay.storage.artifacts.files import Layout
from indexrelay.storage.errors import StoreAccessError
from tests.storage.artifacts.samples import make_release, make_version

FILES = ("releases", "copies")


@pytest.fixture
def version(store: ArtifactStore) -> str:
    version = make_version(store, "voyager", b"1")
    for _ in range(2):
        make_release(store, voyager=version)
    return version


def _file(store: ArtifactStore, folder: str) -> Path:
    return store.root / folder / "00000002.json"


def _truncate(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, 30)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def _fill_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


CORRUPTIONS = (_truncate, _flip, Path.unlink, _fill_its_place)


@pytest.mark.parametrize("folder", FILES)
@pytest.mark.parametrize("corrupt", CORRUPTIONS)
def test_one_corrupt_file_costs_nothing_and_is_mended(
    store: ArtifactStore, version: str, folder: str, corrupt: Callable[[Path], None]
) -> None:
    whole, bytes_ = store.newest_release(), _file(store, folder).read_bytes()
    corrupt(_file(store, folder))
    assert store.newest_release() == whole
    assert store.broken_releases == {}
    assert store.next_number() == 3
    assert store.repair_release() == [_file(store, folder)]
    assert _file(store, folder).read_bytes() == bytes_
    assert store.repair_release() == []


@pytest.mark.parametrize("first", CORRUPTIONS)
@pytest.mark.parametrize("second", CORRUPTIONS)
def test_where_both_are_corrupt_the_number_stays_taken_unless_both_are_gone(
    store: ArtifactStore,
    version: str,
    first: Callable[[Path], None],
    second: Callable[[Path], None],
) -> None:
    first(_file(store, "releases"))
    second(_file(store, "copies"))
    newest = store.newest_release()
    assert newest is not None
    assert newest.number == 1
    gone = first is second is Path.unlink
    assert list(store.broken_releases) == ([] if gone else [2])
    assert store.next_number() == (2 if gone else 3)
    with pytest.raises(ReleaseUnreadableError) as caught:
        store.release(2)
    assert caught.value.missing is gone
    assert store.repair_release() == []


def test_a_store_of_an_earlier_version_gets_its_copies_by_mending(
    store: ArtifactStore, version: str
) -> None:
    shutil.rmtree(store.root / "copies")
    assert store.newest_release() == store.release(2)
    assert store.repair_release() == [_file(store, "copies")]


def test_a_release_whose_copy_cannot_be_written_stands(
    store: ArtifactStore, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_once = Layout.write_once

    def full(layout: Layout, data: bytes, path: Path) -> bool:
        if path.parent.name == "copies":
            raise StoreAccessError(path, "write", OSError(28, "No space left on device"))
        return write_once(layout, data, path)

    monkeypatch.setattr(Layout, "write_once", full)
    assert make_release(store, voyager=version).number == 3
    assert store.newest_release() == store.release(3)
