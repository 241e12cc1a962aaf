"""A corrupt release is reported, and the newest intact one is served meanwhile."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from indexrelay.schemas.names import canonical_json, sha256_hex
from indexrelay.storage.artifacts import (
    ArtifactStore,
    ReleaseExistsError,
    ReleaseUnreadableError,
    StoreAccessError,
    UnsafeNameError,
)
from tests.fixtures.logs import capture_logs
from tests.storage.artifacts.samples import make_release, make_version


@pytest.fixture
def version(store: ArtifactStore) -> str:
    version = make_version(store, "voyager", b"1")
    for _ in range(3):
        make_release(store, voyager=version)
    shutil.rmtree(store.root / "copies")  # these are corrupt, too
    return version


def _path(store: ArtifactStore, number: int) -> Path:
    return store.root / "releases" / f"{number:08d}.json"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"7", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"number": NaN}'],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_release_is_passed_over(
    store: ArtifactStore, version: str, content: bytes
) -> None:
    _path(store, 3).chmod(0o644)
    _path(store, 3).write_bytes(content)
    newest = store.newest_release()
    assert newest is not None
    assert newest.number == 2
    assert list(store.broken_releases) == [3]
    with pytest.raises(ReleaseUnreadableError, match=r"00000003\.json") as caught:
        store.release(3)
    assert not caught.value.missing


def _a_folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").touch()


def _a_link(path: Path) -> None:
    path.symlink_to(path.with_name("00000002.json"))


@pytest.mark.parametrize("put", [_a_folder, _a_link, os.mkfifo])
def test_what_is_no_file_is_a_corrupt_release_like_any_other(
    store: ArtifactStore, version: str, put: Callable[[Path], None]
) -> None:
    _path(store, 3).unlink()
    put(_path(store, 3))
    newest = store.newest_release()
    assert newest is not None
    assert newest.number == 2
    assert "not a regular file" in str(store.broken_releases[3])
    assert make_release(store, voyager=version).number == 4


def test_one_changed_bit_anywhere_is_found(store: ArtifactStore, version: str) -> None:
    whole = _path(store, 3).read_bytes()
    _path(store, 3).chmod(0o644)
    for position in range(len(whole)):
        corrupt = bytearray(whole)
        corrupt[position] ^= 1
        _path(store, 3).write_bytes(corrupt)
        newest = store.newest_release()
        assert newest is not None
        assert newest.number == 2, corrupt


def test_a_release_under_another_number_is_not_taken_for_it(
    store: ArtifactStore, version: str
) -> None:
    _path(store, 4).write_bytes(_path(store, 3).read_bytes())
    with pytest.raises(ReleaseUnreadableError):
        store.release(4)


def test_a_corrupt_newest_is_logged_once_and_again_when_it_is_another(
    store: ArtifactStore, version: str
) -> None:
    _path(store, 3).unlink()
    _path(store, 3).write_bytes(b"half a rel")
    with capture_logs() as lines:
        for _ in range(3):
            store.newest_release()
    assert [(line["event"], line["release"]) for line in lines] == [("release.unreadable", 3)]


def test_the_number_of_a_corrupt_release_is_not_used_again(
    store: ArtifactStore, version: str
) -> None:
    _path(store, 3).unlink()
    _path(store, 3).write_bytes(b"half a rel")
    with pytest.raises(ReleaseExistsError) as caught:
        make_release(store, 3, voyager=version)
    assert make_release(store, caught.value.next_number, voyager=version).number == 4
    assert store.newest_release() == store.release(4)
    assert store.broken_releases == {}


def test_only_the_newest_is_read(
    store: ArtifactStore, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        _path(store, number).unlink()
        _path(store, number).write_bytes(b"")
    assert store.newest_release() == store.release(3)
    assert store.broken_releases == {}


def test_other_files_in_the_folder_are_no_releases(store: ArtifactStore, version: str) -> None:
    for name in ("9.json", "00000000.json", "000000009.json", "00000009.json~", "٠٠٠٠٠٠٠٩.json"):
        (store.root / "releases" / name).write_bytes(b"{}")
    newest = store.newest_release()
    assert newest is not None
    assert newest.number == 3
    assert store.next_number() == 4


def test_a_release_of_a_newer_minor_version_is_read(store: ArtifactStore, version: str) -> None:
    fields = json.loads(_path(store, 3).read_bytes())
    del fields["digest"]
    fields |= {"number": 4, "schema_version": "1.9", "colour": "blue"}
    fields["digest"] = sha256_hex(canonical_json(fields))
    _path(store, 4).write_bytes(canonical_json(fields))
    assert store.release(4).schema_version == "1.9"


def test_a_release_of_another_major_version_is_not_followed(
    store: ArtifactStore, version: str
) -> None:
    fields = json.loads(_path(store, 3).read_bytes())
    del fields["digest"]
    fields |= {"number": 4, "schema_version": "2.0"}
    fields["digest"] = sha256_hex(canonical_json(fields))
    _path(store, 4).write_bytes(canonical_json(fields))
    assert store.newest_release() == store.release(3)
    assert set(store.broken_releases) == {4}


def test_a_missing_release_says_so(store: ArtifactStore, version: str) -> None:
    with pytest.raises(ReleaseUnreadableError) as caught:
        store.release(9)
    assert caught.value.missing
    with pytest.raises(UnsafeNameError):
        store.release(0)


def test_a_disk_that_cannot_be_read_is_not_taken_for_an_older_release(
    store: ArtifactStore, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_args: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(StoreAccessError, match=r"00000003\.json: Input/output error"):
        store.newest_release()
