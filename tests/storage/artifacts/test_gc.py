"""Garbage collection removes what nothing names, and never anything else."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexrelay.storage.artifacts import (
    ArtifactStore,
    BlobMissingError,
    Collected,
    VersionUnreadableError,
)
from tests.fixtures.logs import capture_logs
from tests.storage.artifacts.samples import MovedClock, make_file, make_release, make_version

HOUR = 3600.0


def _collect(
    store: ArtifactStore,
    *,
    keep: int = 1,
    used: Collection[str] = (),
    all_known: bool = True,
) -> Collected:
    return store.collect_garbage(
        keep_releases=keep, used_versions=used, all_known=all_known, grace_seconds=HOUR
    )


def test_what_only_old_releases_name_is_removed(store: ArtifactStore, clock: MovedClock) -> None:
    versions = [make_version(store, "voyager", b"base", b"delta %d" % i) for i in range(3)]
    for version in versions:
        make_release(store, voyager=version)
    clock.advance(2 * HOUR)
    collected = _collect(store, keep=2)
    assert collected.releases == (1,)
    assert collected.versions == (("voyager", versions[0]),)
    assert len(collected.blobs) == 1
    assert collected.bytes == len(b"delta 0")
    for version in versions[1:]:
        store.open_version("voyager", version)
    assert _collect(store, keep=2) == Collected()


def test_nothing_is_removed_within_the_grace_period(
    store: ArtifactStore, clock: MovedClock
) -> None:
    make_version(store, "voyager", b"a build that goes on")
    store.put_blob(make_file(store.staging, b"a build that goes on, too"))
    clock.advance(HOUR - 60)
    assert _collect(store) == Collected()
    clock.advance(120)
    collected = _collect(store)
    assert (len(collected.versions), len(collected.blobs)) == (1, 2)


def test_what_a_reader_serves_stays(store: ArtifactStore, clock: MovedClock) -> None:
    old, new = (make_version(store, "voyager", name) for name in (b"old", b"new"))
    make_release(store, voyager=old)
    make_release(store, voyager=new)
    clock.advance(2 * HOUR)
    assert _collect(store, used={old}).versions == ()
    store.open_version("voyager", old)
    assert _collect(store, used=set()).versions == (("voyager", old),)


def test_without_presence_a_release_counts_until_a_grace_period_after_its_successor(
    store: ArtifactStore, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (make_version(store, "voyager", name) for name in (b"old", b"new"))
    make_release(store, voyager=old)
    make_release(store, voyager=new)
    # As if everything but the second release were old.
    lstat = Path.lstat

    def aged(path: Path) -> os.stat_result:
        found = lstat(path)
        if path.name == "00000002.json":
            return found
        return os.stat_result((*found[:9], found.st_ctime - 2 * HOUR), {"st_ctime": 0.0})

    monkeypatch.setattr(Path, "lstat", aged)
    assert _collect(store, all_known=False) == Collected()
    assert _collect(store, used=set()).versions == (("voyager", old),)


def test_a_blob_that_a_running_build_found_in_the_store_is_young_again(
    store: ArtifactStore, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = store.put_blob(make_file(store.staging, b"left by an old version"))
    pin = f"{ref.digest}.pin"
    lstat = Path.lstat

    def aged(path: Path) -> os.stat_result:
        found = lstat(path)
        if path.name == pin:
            return found
        return os.stat_result((*found[:9], found.st_ctime - 2 * HOUR), {"st_ctime": 0.0})

    store.put_blob(make_file(store.staging, b"left by an old version"))
    monkeypatch.setattr(Path, "lstat", aged)
    assert _collect(store) == Collected()
    monkeypatch.undo()
    clock.advance(2 * HOUR)
    collected = _collect(store)
    assert (collected.blobs, collected.staged) == ((ref.digest,), 1)


def test_the_copy_of_a_release_goes_with_it(store: ArtifactStore, clock: MovedClock) -> None:
    for number in range(3):
        make_release(store, voyager=make_version(store, "voyager", b"%d" % number))
    clock.advance(2 * HOUR)
    assert _collect(store).releases == (2, 1)
    for folder in ("releases", "copies"):
        assert [path.name for path in (store.root / folder).iterdir()] == ["00000003.json"]


def test_the_newest_intact_release_stays_below_corrupt_ones(
    store: ArtifactStore, clock: MovedClock
) -> None:
    version = make_version(store, "voyager", b"good")
    for _ in range(3):
        make_release(store, voyager=version)
    for number in (2, 3):
        for folder in ("releases", "copies"):
            path = store.root / folder / f"{number:08d}.json"
            path.unlink()
            path.write_bytes(b"half a rel")
    clock.advance(2 * HOUR)
    assert _collect(store) == Collected()
    newest = store.newest_release()
    assert newest is not None
    assert newest.number == 1
    store.open_version("voyager", version)


def test_no_blob_is_removed_while_a_kept_manifest_cannot_say_what_it_names(
    store: ArtifactStore, clock: MovedClock
) -> None:
    version = make_version(store, "voyager", b"named")
    make_release(store, voyager=version)
    garbage = store.put_blob(make_file(store.staging, b"garbage"))
    manifest = store.root / "versions" / "voyager" / f"{version}.json"
    whole = manifest.read_bytes()
    manifest.chmod(0o644)
    manifest.write_bytes(whole[:40])
    clock.advance(2 * HOUR)
    with capture_logs() as lines:
        assert _collect(store).blobs == ()
    assert [line["event"] for line in lines] == ["gc.blobs_kept"]
    manifest.write_bytes(whole)
    assert _collect(store).blobs == (garbage.digest,)
    store.open_version("voyager", version)


def test_what_writers_left_behind_goes_and_what_others_put_there_stays(
    store: ArtifactStore, clock: MovedClock
) -> None:
    (store.staging / "0123.tmp").write_bytes(b"killed")
    strangers = [
        store.root / "blobs" / "sha256" / "README",
        store.root / "versions" / "Notes" / "x.json",
        store.root / "versions" / "notes.txt",
    ]
    for path in strangers:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    clock.advance(2 * HOUR)
    assert _collect(store) == Collected(staged=1)
    assert all(path.exists() for path in strangers)


def test_what_was_checked_is_forgotten_with_the_blob(
    store: ArtifactStore, clock: MovedClock
) -> None:
    store.put_blob(make_file(store.staging, b"garbage"))
    clock.advance(2 * HOUR)
    assert len(list(store.root.glob("checked/*/*"))) == 1
    _collect(store)
    assert list(store.root.glob("checked/*/*")) == []


def test_a_build_that_outlived_the_grace_period_is_told_so(
    store: ArtifactStore, clock: MovedClock
) -> None:
    version = make_version(store, "voyager", b"slow")
    manifest = store.version("voyager", version)
    clock.advance(2 * HOUR)
    _collect(store)
    with pytest.raises(BlobMissingError):
        store.put_version(manifest)


def test_a_store_without_kept_releases_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        _collect(store, keep=0)


def test_garbage_collection_and_releases_at_once_never_leave_a_release_without_its_files(
    store: ArtifactStore, clock: MovedClock
) -> None:
    """Proves the lock: what is found unused cannot be released before it is removed."""
    clock.advance(2 * HOUR)
    make_release(store, voyager=make_version(store, "voyager", b"first"))
    ready = threading.Barrier(2)
    rounds = 100

    def collecting() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            for _ in range(rounds):
                ready.wait()
                _collect(store)
                ready.wait()

    thread = threading.Thread(target=collecting)
    thread.start()
    try:
        for i in range(rounds):
            version = make_version(store, "voyager", b"%d" % i)
            ready.wait()
            with contextlib.suppress(VersionUnreadableError, BlobMissingError):
                make_release(store, voyager=version)
            ready.wait()
            newest = store.newest_release()
            assert newest is not None
            store.open_version("voyager", newest.components["voyager"])
    finally:
        ready.abort()  # does nothing to a thread that is done
        thread.join()
    assert store.next_number() > 2, "garbage collection was always faster: nothing was tested"


@settings(max_examples=60, deadline=None)
@given(
    releases=st.lists(
        st.dictionaries(st.sampled_from(["voyager", "clap", "mulan"]), st.integers(0, 5)),
        min_size=1,
        max_size=8,
    ),
    keep=st.integers(1, 4),
    used=st.sets(st.integers(0, 5)),
)
def test_whatever_is_collected_the_kept_releases_and_readers_find_all_their_files(
    releases: list[dict[str, int]], keep: int, used: set[int]
) -> None:
    clock = MovedClock()
    with tempfile.TemporaryDirectory() as folder:
        store = ArtifactStore(Path(folder), clock=clock)
        # Neighbouring versions share a file, as a base that outlives its deltas does.
        versions = {
            (name, i): make_version(store, name, b"base %d" % (i // 2), b"%d" % i)
            for name in ("voyager", "clap", "mulan")
            for i in range(6)
        }
        for release in releases:
            make_release(store, **{name: versions[name, i] for name, i in release.items()})
        clock.advance(2 * HOUR)
        read = {versions["clap", i] for i in used}
        collected = _collect(store, keep=keep, used=read)
        kept = range(max(1, len(releases) - keep + 1), len(releases) + 1)
        named = {item for number in kept for item in store.release(number).components.items()}
        for name, version in named | {("clap", version) for version in read}:
            store.open_version(name, version)
        gone = {version for _, version in collected.versions}
        assert gone == set(versions.values()) - {version for _, version in named} - read
        assert set(collected.releases) == set(range(1, len(releases) + 1)) - set(kept)
