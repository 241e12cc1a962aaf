"""A blob that was checked is checked again, and one check counts for everybody on the host."""

import fcntl
import os
from pathlib import Path

import pytest

from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.files import LockWaits
from indexrelay.schemas.versions import BlobRef
from indexrelay.storage.artifacts import ArtifactStore, BlobCorruptError, BlobMissingError
from indexrelay.storage.artifacts.blobs import BlobMarks, file_identity
from indexrelay.storage.artifacts.files import Access, StoreLock
from tests.storage.artifacts.samples import MovedClock, make_file, make_version

CONTENT = b"0123456789" * 300_000  # three pieces


@pytest.fixture
def ref(store: ArtifactStore, tmp_path: Path) -> BlobRef:
    return store.put_blob(make_file(tmp_path, CONTENT))


def _rot(store: ArtifactStore, ref: BlobRef) -> None:
    """Another bit, and nothing that a look at the file would show: as when a disk rots.

    Whoever writes changes the ctime, so what is remembered is made to fit the file that rotted.
    """
    path = store.blob(ref)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(len(CONTENT) // 2)
        file.write(b"x")
    for mark in store.root.glob(f"checked/*/{ref.digest}"):
        mark.write_text(file_identity(path.stat()), encoding="ascii")


def _all(_bytes: int) -> bool:
    return True


def test_a_rotten_blob_passes_for_good_until_it_is_checked_again(
    store: ArtifactStore, ref: BlobRef
) -> None:
    _rot(store, ref)
    other = ArtifactStore(store.root)
    assert other.blob(ref) == store.blob(ref)
    with pytest.raises(BlobCorruptError, match=ref.digest):
        store.recheck_blob(ref, go_on=_all)
    for each in (store, other):
        with pytest.raises(BlobCorruptError):
            each.blob(ref)


def test_it_is_read_in_pieces_and_can_be_ended_between_any_two(
    store: ArtifactStore, ref: BlobRef
) -> None:
    read: list[int] = []

    def until_two(count: int) -> bool:
        read.append(count)
        return len(read) != 2

    before = store.look_at_blob(ref)
    assert not store.recheck_blob(ref, go_on=until_two)
    assert store.look_at_blob(ref) == before
    assert store.recheck_blob(ref, go_on=until_two)
    assert sum(read[2:]) == len(CONTENT)
    assert max(read) <= 1 << 20


def test_a_check_counts_for_every_process_of_the_host(store: ArtifactStore, ref: BlobRef) -> None:
    (mark,) = store.root.glob(f"checked/*/{ref.digest}")
    os.utime(mark, (1000, 1000))
    other = ArtifactStore(store.root)
    look = other.look_at_blob(ref)
    assert look is not None
    assert look.checked_at == 1000
    store.recheck_blob(ref, go_on=_all)
    after = other.look_at_blob(ref)
    assert after is not None
    assert after.checked_at is not None
    assert after.checked_at > 1000
    assert after.inode == look.inode


@pytest.mark.parametrize("corrupt", ["gone", "folder", "link", "short", "changed"])
def test_every_corruption_is_found(store: ArtifactStore, ref: BlobRef, corrupt: str) -> None:
    path = store.blob(ref)
    path.chmod(0o644)
    match corrupt:
        case "short":
            os.truncate(path, 100)
        case "changed":
            path.write_bytes(b"x" + CONTENT[1:])
        case _:
            path.unlink()
    if corrupt == "folder":
        path.mkdir()
    if corrupt == "link":
        path.symlink_to(store.root / "lock")
    error = BlobMissingError if corrupt == "gone" else BlobCorruptError
    with pytest.raises(error, match=ref.digest):
        store.recheck_blob(ref, go_on=_all)
    look = store.look_at_blob(ref)
    assert (look is None) == (corrupt == "gone")
    assert look is None or look.checked_at is None


def test_a_version_that_somebody_doubts_is_hashed_again_before_it_is_opened(
    store: ArtifactStore,
) -> None:
    version = make_version(store, "voyager", CONTENT)
    (ref,) = store.version("voyager", version).files.values()
    _rot(store, ref)
    store.open_version("voyager", version)
    store.forget_checks("voyager", version)
    with pytest.raises(BlobCorruptError):
        store.open_version("voyager", version)


def test_where_no_mark_can_be_removed_the_process_trusts_its_own_eyes(
    tmp_path: Path, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_file(tmp_path, b"x")
    builder = BlobMarks(tmp_path / "checked" / "host", access=Access(), clock=clock)
    builder.remember("d", file.stat())

    def refuse(*_args: object, **_keys: object) -> None:
        raise OSError(30, "Read-only file system")

    reader = BlobMarks(tmp_path / "checked" / "host", access=Access(), clock=clock)
    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr("indexrelay.storage.artifacts.blobs.write_mark", refuse)
    assert reader.known("d", file.stat())
    reader.forget("d", file.stat())
    assert not reader.known("d", file.stat())
    clock.advance(5000.0)
    reader.remember("d", file.stat())
    at = reader.checked_at("d", file.stat())
    assert at is not None
    assert abs(at - clock.now().timestamp()) < 60


def test_one_process_of_a_host_scrubs_at_a_time(store: ArtifactStore) -> None:
    other = ArtifactStore(store.root)
    with store.scrubbing() as first, other.scrubbing() as second:
        assert (first, second) == (True, False)
    with other.scrubbing() as again:
        assert again


@pytest.mark.parametrize("lock", ["scrubbing", "collecting"])
def test_a_child_that_was_forked_meanwhile_keeps_no_lock(store: ArtifactStore, lock: str) -> None:
    """A web server forks its workers whenever it likes, and they live for weeks."""
    clock = SystemClock()
    locks = StoreLock(store.root / "lock", waits=LockWaits(clock), clock=clock)
    kept: list[int] = []

    def fork() -> None:  # what a fork does to a lock: the same open file, in one more table
        kept.extend(os.dup(int(fd.name)) for fd in Path("/proc/self/fd").iterdir() if _locks(fd))

    try:
        with store.scrubbing() if lock == "scrubbing" else locks.collecting():
            fork()
        assert kept
        with store.scrubbing() as alone:
            assert alone
        with (store.root / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        for each in kept:
            os.close(each)


def _locks(fd: Path) -> bool:
    """Whether a descriptor is of one of the store's lock files."""
    try:
        return fd.readlink().name.endswith("lock")
    except FileNotFoundError:  # that of the listing itself
        return False


def test_where_no_lock_can_be_had_everybody_scrubs(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.root / "checked").write_bytes(b"")  # refuses root as well
    with store.scrubbing() as first, store.scrubbing() as second:
        assert (first, second) == (True, True)
