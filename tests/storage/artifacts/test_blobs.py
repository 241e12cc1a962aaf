"""Blobs: named by content, immutable, hashed once per host, and never trusted when they changed."""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, TypeVar

import pytest

from indexrelay.schemas.versions import BlobRef
from indexrelay.storage.artifacts import (
    ArtifactStore,
    BlobCorruptError,
    BlobMissingError,
    StoreAccessError,
    UnsafeNameError,
)
from tests.storage.artifacts.samples import make_file

T = TypeVar("T")


def test_a_blob_is_moved_to_the_name_of_its_content(store: ArtifactStore, tmp_path: Path) -> None:
    file = make_file(tmp_path, b"a library of songs")
    ref = store.put_blob(file)
    assert ref == BlobRef(digest=hashlib.sha256(b"a library of songs").hexdigest(), size=18)
    path = store.blob(ref)
    assert path == store.root / "blobs" / "sha256" / ref.digest[:2] / ref.digest
    assert path.read_bytes() == b"a library of songs"
    assert not file.exists()


def test_a_blob_is_read_only_whatever_the_umask(store: ArtifactStore, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        ref = store.put_blob(make_file(tmp_path, b"x"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.blob(ref).stat().st_mode) == 0o400


def test_the_same_content_again_keeps_the_file_that_is_there(
    store: ArtifactStore, tmp_path: Path
) -> None:
    ref = store.put_blob(make_file(tmp_path, b"once"))
    before = store.blob(ref).stat()
    again = make_file(tmp_path, b"once")
    assert store.put_blob(again) == ref
    after = store.blob(ref).stat()
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    assert not again.exists()


def test_putting_a_blob_by_the_path_where_it_was_opened_leaves_it_there(
    store: ArtifactStore, tmp_path: Path
) -> None:
    ref = store.put_blob(make_file(tmp_path, b"kept"))
    assert store.put_blob(store.blob(ref)) == ref
    assert store.blob(ref).read_bytes() == b"kept"


def test_a_file_on_another_file_system_is_copied(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_within_the_store(source: Path, target: Path) -> None:
        if store.root not in Path(source).parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target)

    monkeypatch.setattr(os, "link", link_within_the_store)
    file = make_file(tmp_path, b"from afar")
    ref = store.put_blob(file)
    assert store.blob(ref).read_bytes() == b"from afar"
    assert not file.exists()
    assert list(store.staging.iterdir()) == []


def test_a_copy_that_is_not_what_was_hashed_gets_no_name(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def torn(_source: Path, target: Path) -> None:
        target.write_bytes(b"from")

    ref = store.put_blob(make_file(tmp_path, b"from afar"))
    _flip(store.blob(ref))
    monkeypatch.setattr(shutil, "copyfile", torn)
    file = make_file(tmp_path, b"from afar")
    with pytest.raises(BlobCorruptError, match=str(file)):
        store.put_blob(file)
    with pytest.raises(BlobCorruptError, match="its content has the digest"):
        store.blob(ref)
    assert list(store.staging.iterdir()) == []


class _Later(Executor):
    """Does what it was given when it is told to."""

    def __init__(self) -> None:
        self._work: list[Callable[[], None]] = []

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except OSError as error:
                future.set_exception(error)

        self._work.append(work)
        return future

    def run(self) -> None:
        while self._work:
            self._work.pop()()


def test_a_staged_file_lies_where_it_was_until_it_is_put(
    store: ArtifactStore, tmp_path: Path
) -> None:
    file, forcing = make_file(tmp_path, b"judged first"), _Later()
    staged = store.stage_blob(file, forcing)
    assert (staged.file, staged.ref.size) == (file, 12)
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    with pytest.raises(BlobMissingError):
        store.blob(staged.ref)
    forcing.run()
    assert store.put_blob(staged) == staged.ref
    assert store.blob(staged.ref).read_bytes() == b"judged first"
    assert not file.exists()


def test_what_the_disk_refuses_gets_no_name(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    file, forcing = make_file(tmp_path, b"lost"), _Later()
    staged = store.stage_blob(file, forcing)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        forcing.run()
    with pytest.raises(StoreAccessError, match=rf"{file}.*Input/output error") as caught:
        store.put_blob(staged)
    assert caught.value.errno == errno.EIO
    assert file.exists()
    with pytest.raises(BlobMissingError):
        store.blob(staged.ref)


def test_a_staged_file_that_somebody_went_on_writing_to_gets_no_name(
    store: ArtifactStore, tmp_path: Path
) -> None:
    file, forcing = make_file(tmp_path, b"judged first"), _Later()
    with file.open("r+b") as kept_open:
        staged = store.stage_blob(file, forcing)
        kept_open.write(b"J")
    forcing.run()
    with pytest.raises(BlobCorruptError, match="it was written to after it was hashed"):
        store.put_blob(staged)
    with pytest.raises(BlobMissingError):
        store.blob(staged.ref)


def test_a_link_or_a_pipe_is_not_taken_for_a_file(store: ArtifactStore, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(make_file(tmp_path, b"secret"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (link, pipe, tmp_path / "nothing"):
        with pytest.raises(StoreAccessError, match=str(path)):
            store.put_blob(path)


def test_a_blob_that_is_not_there_is_missing(store: ArtifactStore) -> None:
    with pytest.raises(BlobMissingError, match="a" * 64):
        store.blob(BlobRef(digest="a" * 64, size=1))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, 3)


def _swap_for_a_link(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("corrupt", [_flip, _truncate, _swap_for_a_link])
@pytest.mark.parametrize("seen", [True, False])
def test_corruption_is_found_by_a_process_that_had_checked_it_and_by_a_new_one(
    store: ArtifactStore, tmp_path: Path, corrupt: object, *, seen: bool
) -> None:
    assert callable(corrupt)
    ref = store.put_blob(make_file(tmp_path, b"0123456789"))
    corrupt(store.blob(ref))
    reader = store if seen else ArtifactStore(store.root)
    with pytest.raises(BlobCorruptError, match=ref.digest):
        reader.blob(ref)


def test_putting_the_same_content_repairs_a_corrupt_blob(
    store: ArtifactStore, tmp_path: Path
) -> None:
    ref = store.put_blob(make_file(tmp_path, b"0123456789"))
    _flip(store.blob(ref))
    mapped = (store.root / "blobs" / "sha256" / ref.digest[:2] / ref.digest).open("rb")
    store.put_blob(make_file(tmp_path, b"0123456789"))
    assert store.blob(ref).read_bytes() == b"0123456789"
    with mapped:  # who has the old file open keeps the old file
        assert mapped.read() != b"0123456789"


def test_putting_the_same_content_repairs_a_blob_whose_name_a_folder_has_taken(
    store: ArtifactStore, tmp_path: Path
) -> None:
    ref = store.put_blob(make_file(tmp_path, b"0123456789"))
    path = store.blob(ref)
    path.unlink()
    path.mkdir()
    (path / "of somebody else").touch()
    with pytest.raises(BlobCorruptError, match="not a regular file"):
        store.blob(ref)
    store.put_blob(make_file(tmp_path, b"0123456789"))
    assert store.blob(ref).read_bytes() == b"0123456789"
    assert len(list(store.staging.glob("*.displaced/of somebody else"))) == 1


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for every file that is hashed."""
    lines: list[str] = []
    digest = hashlib.file_digest

    def file_digest(stream: object, name: str) -> object:
        lines.append(name)
        return digest(stream, name)  # type: ignore[arg-type]  # any stream, as the original

    monkeypatch.setattr(hashlib, "file_digest", file_digest)
    return lines


def test_a_reader_does_not_hash_what_the_builder_on_its_host_has_put(
    store: ArtifactStore, tmp_path: Path, hashed: list[str]
) -> None:
    ref = store.put_blob(make_file(tmp_path, b"once"))
    assert len(hashed) == 1
    ArtifactStore(store.root).blob(ref)
    assert len(hashed) == 1


def test_another_host_hashes_a_blob_once(
    store: ArtifactStore, tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = store.put_blob(make_file(tmp_path, b"once"))
    monkeypatch.setattr("indexrelay.storage.artifacts.store.host_id", lambda: "another")
    for _ in range(3):
        ArtifactStore(store.root).blob(ref)
    assert len(hashed) == 2


@pytest.mark.parametrize("line", [b"", b"1 2", b"\xff\xfe", b"rubbish\n"])
def test_a_corrupt_memory_of_what_was_checked_costs_another_check(
    store: ArtifactStore, tmp_path: Path, hashed: list[str], line: bytes
) -> None:
    ref = store.put_blob(make_file(tmp_path, b"once"))
    (mark,) = store.root.glob(f"checked/*/{ref.digest}")
    mark.write_bytes(line)
    ArtifactStore(store.root).blob(ref)
    ArtifactStore(store.root).blob(ref)
    assert len(hashed) == 2


def test_a_process_remembers_for_itself_where_it_may_not_write(
    store: ArtifactStore, tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = store.put_blob(make_file(tmp_path, b"once"))
    monkeypatch.setattr("indexrelay.storage.artifacts.store.host_id", lambda: "another")
    # A file where the folder should be refuses root as well.
    (store.root / "checked" / "another").write_bytes(b"")
    reader = ArtifactStore(store.root)
    for _ in range(3):
        reader.blob(ref)
    assert len(hashed) == 2


@pytest.mark.parametrize("digest", ["../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", ""])
def test_what_is_no_digest_never_becomes_a_path(store: ArtifactStore, digest: str) -> None:
    ref = BlobRef.model_construct(digest=digest, size=1)
    with pytest.raises(UnsafeNameError):
        store.blob(ref)


def test_a_full_disk_names_the_path_and_leaves_the_file(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_source: Path, _target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    file = make_file(tmp_path, b"too much")
    with pytest.raises(StoreAccessError, match=r"blobs/sha256/.*No space left") as caught:
        store.put_blob(file)
    assert caught.value.errno == errno.ENOSPC
    assert isinstance(caught.value.__cause__, OSError)
    assert file.exists()
