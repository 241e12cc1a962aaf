"""A backup is made of one moment, and everything comes back from it, or nothing changes."""

import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from indexrelay.operations.backups import (
    BackupCorruptError,
    BackupKeyError,
    BackupRefusedError,
    BackupSourceError,
    generate_identity,
)
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.versions import BlobRef
from indexrelay.storage.artifacts import Collected
from indexrelay.storage.errors import (
    BackupsBusyError,
    BackupUnknownError,
    CatalogNotEmptyError,
    NothingReleasedError,
)
from indexrelay.testing.pipeline import Pipeline
from tests.operations.backups.conftest import (
    VECTORS,
    Install,
    answers,
    backups_of,
    blobs_of,
    commit,
    everything_in,
)


def wipe(pipeline: Pipeline, *, catalog: bool = True, artifacts: bool = True) -> None:
    """Lose what was kept; Redis is lost with every pipeline that is closed."""
    pipeline.close()
    if artifacts:
        shutil.rmtree(pipeline.settings.artifacts_dir)
    if catalog:
        for path in pipeline.settings.data_dir.glob("catalog.db*"):
            path.unlink()


@pytest.mark.parametrize("form", ["file", "folder", "encrypted"])
def test_after_everything_was_wiped_a_backup_brings_back_the_same_results_digest_by_digest(
    install: Install, tmp_path: Path, form: str
) -> None:
    key = tmp_path / "key.txt"
    more: dict[str, Any] = {"format": "folder"} if form == "folder" else {}
    if form == "encrypted":
        more = {"recipients": [generate_identity(key)], "identity_file": key}
    pipeline = install(backups=more)
    commit(pipeline, "first", range(40))
    commit(pipeline, "second", range(20, 60))
    pipeline.settle()
    found, blobs = answers(pipeline), blobs_of(pipeline)
    entry = pipeline.catalog.entries.get("tracks", "t7")
    release = pipeline.store.newest_release()
    assert release is not None
    created = backups_of(pipeline).create()
    assert created.backup.is_folder == (form == "folder")
    assert created.backup.is_encrypted == (form == "encrypted")
    wipe(pipeline)

    pipeline = install(backups=more)
    done = backups_of(pipeline).restore(created.backup.id, with_catalog=True)
    assert done.release.number > release.number
    assert done.release.components == release.components
    assert done.release.holds == {}
    assert blobs_of(pipeline) == blobs
    assert answers(pipeline) == found
    assert (back := pipeline.catalog.entries.get("tracks", "t7")) is not None
    assert entry is not None
    assert replace(back, generation=entry.generation) == entry
    # It goes on from there.
    commit(pipeline, "third", range(5))
    pipeline.settle()
    assert answers(pipeline) == found
    assert {each.name: each.count for each in pipeline.catalog.collections.all()} == {"tracks": 60}


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_backup_that_was_cut_or_altered_anywhere_is_refused_and_nothing_is_changed(
    install: Install, tmp_path: Path, encrypted: bool
) -> None:
    key = tmp_path / "key.txt"
    more = {"recipients": [generate_identity(key)], "identity_file": key} if encrypted else {}
    pipeline = install(backups=more)
    commit(pipeline, "first", range(5))
    pipeline.settle()
    backups = backups_of(pipeline)
    backup = backups.create().backup
    whole = backup.path.read_bytes()
    before = everything_in(pipeline.settings.artifacts_dir)
    step = max(1, len(whole) // 40)
    cuts = [whole[:size] for size in (*range(0, len(whole), step), len(whole) - 1)]
    altered = [
        whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
        for at in (*range(0, len(whole), step), len(whole) - 1)
    ]
    for damaged in (*cuts, *altered, whole + b"\0", whole + whole):
        backup.path.write_bytes(damaged)
        with pytest.raises((BackupCorruptError, BackupKeyError)) as caught:
            backups.restore(backup.id)
        assert str(backup.path) in str(caught.value)
        assert everything_in(pipeline.settings.artifacts_dir) == before
    backup.path.write_bytes(whole)
    assert backups.verify(backup.id).release.number == 1


def test_a_folder_of_which_a_file_is_gone_altered_or_a_link_is_refused(
    install: Install, tmp_path: Path
) -> None:
    pipeline = install(backups={"format": "folder"})
    commit(pipeline, "first", range(5))
    pipeline.settle()
    backups = backups_of(pipeline)
    backup = backups.create().backup
    before = everything_in(pipeline.settings.artifacts_dir)
    for path in sorted(each for each in backup.path.rglob("*") if each.is_file()):
        content = path.read_bytes()
        (tmp_path / "elsewhere").write_bytes(content)
        for damage in ("gone", "altered", "longer", "a link"):
            path.unlink()
            if damage == "altered":
                path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
            elif damage == "longer":
                path.write_bytes(content + b"}")
            elif damage == "a link":
                path.symlink_to(tmp_path / "elsewhere")
            with pytest.raises(BackupCorruptError):
                backups.restore(backup.id)
            path.unlink(missing_ok=True)
            path.write_bytes(content)
        assert everything_in(pipeline.settings.artifacts_dir) == before
    assert backups.verify(backup.id).id == backup.id


def test_without_the_right_key_an_encrypted_backup_stays_closed(
    install: Install, tmp_path: Path
) -> None:
    public = generate_identity(tmp_path / "right.txt")
    generate_identity(tmp_path / "wrong.txt")
    pipeline = install(backups={"recipients": [public]})
    commit(pipeline, "first", range(5))
    pipeline.settle()
    backups = backups_of(pipeline)
    seen: list[bytes] = []

    def look(done: int, total: int) -> None:
        files = everything_in(backups.folder.path)
        seen.extend(name.encode() + content for name, content in files.items())

    backup = backups.create(progress=look).backup
    assert seen
    assert b"SQLite" not in b"".join(seen), "the catalog is in the folder in plain text"
    assert b"similar" not in backup.path.read_bytes()
    with pytest.raises(BackupKeyError, match="name its private key: --identity FILE"):
        backups.restore(backup.id)
    with pytest.raises(BackupKeyError, match="is encrypted for other keys"):
        backups.restore(backup.id, identity_file=tmp_path / "wrong.txt")
    (tmp_path / "right.txt").chmod(0o644)
    with pytest.raises(BackupKeyError, match="others may read"):
        backups.verify(backup.id, identity_file=tmp_path / "right.txt")
    (tmp_path / "right.txt").chmod(0o600)
    assert backups.restore(backup.id, identity_file=tmp_path / "right.txt").release.number == 2


def test_no_private_key_is_in_an_error_about_its_file(tmp_path: Path, install: Install) -> None:
    broken = tmp_path / "key.txt"
    generate_identity(broken)
    secret = broken.read_text().splitlines()[-1]
    broken.write_text(secret[:-1] + "\n")
    pipeline = install(backups={"recipients": [generate_identity(tmp_path / "other.txt")]})
    commit(pipeline, "first", range(5))
    pipeline.settle()
    backup = backups_of(pipeline).create().backup
    with pytest.raises(BackupKeyError, match="holds no private key") as caught:
        backups_of(pipeline).verify(backup.id, identity_file=broken)
    assert secret[:30] not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("damage", ["a view", "another generation"])
def test_a_backup_whose_catalog_cannot_be_taken_over_is_found_when_it_is_verified(
    install: Install, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    pipeline = install()
    commit(pipeline, "first", range(5))
    pipeline.settle()
    write_copy = pipeline.catalog.write_copy

    def damaged(file: Path) -> None:
        write_copy(file)
        if damage == "a view":
            with contextlib.closing(sqlite3.connect(file)) as copy, copy:
                copy.execute("CREATE VIEW more AS SELECT * FROM indexrelay_entries")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.catalog, "write_copy", damaged)
        if damage == "another generation":
            patch.setattr(
                "indexrelay.operations.backups.backups.generations_in", lambda _: {"tracks": 9}
            )
        backup = backups_of(pipeline).create().backup
    wipe(pipeline)

    pipeline = install()
    backups = backups_of(pipeline)
    before = everything_in(pipeline.settings.artifacts_dir)
    reason = "it has a view" if damage == "a view" else "at other generations"
    with pytest.raises(BackupCorruptError, match=reason):
        backups.verify(backup.id)
    with pytest.raises(BackupCorruptError, match=reason):
        backups.restore(backup.id, with_catalog=True)
    assert everything_in(pipeline.settings.artifacts_dir) == before
    assert backups.restore(backup.id).release.number == 2  # without it


def collect_all(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, fresh: Collection[str] = ()
) -> Collected:
    """Collect garbage as if all files were two hours old, but what a backup touches meanwhile, and
    those of these names."""
    lstat = Path.lstat

    def aged(path: Path) -> os.stat_result:
        found = lstat(path)
        if path.suffix == ".pin" or path.name.endswith("-catalog.tmp") or path.name in fresh:
            return found
        return os.stat_result((*found[:9], found.st_ctime - 7200), {"st_ctime": 0.0})

    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", aged)
        return pipeline.store.collect_garbage(
            keep_releases=1, used_versions=(), grace_seconds=3600, clock=SystemClock()
        )


def test_what_is_committed_built_and_collected_meanwhile_leaves_a_backup_of_one_moment(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = install()
    commit(pipeline, "first", range(30))
    pipeline.settle()
    found, blobs = answers(pipeline), blobs_of(pipeline)
    collected: list[Collected] = []

    def meanwhile(done: int, total: int) -> None:
        if len(collected) < 3:
            commit(pipeline, f"more-{len(collected)}", range(30 + len(collected), 40))
            pipeline.producer.request_rebuild(["similar", "cache"], full=True)
            pipeline.settle()
            collected.append(collect_all(pipeline, monkeypatch))

    created = backups_of(pipeline).create(progress=meanwhile)
    # The release that was backed up is not kept any more, and its blobs were, until now.
    assert collected[0].releases == (1,)
    assert collected[0].versions
    assert collected[0].blobs == ()
    newest = pipeline.store.newest_release()
    assert newest is not None
    assert newest.number > created.manifest.release.number
    assert created.manifest.catalog is not None
    # The catalog is of the moment before all that: it has what the release covers.
    assert created.manifest.catalog.generations == {"tracks": 1}
    wipe(pipeline)

    pipeline = install()
    backups_of(pipeline).restore(created.backup.id, with_catalog=True)
    assert blobs_of(pipeline) == blobs
    assert answers(pipeline) == found
    assert pipeline.catalog.collections.get("tracks").count == 30


def test_a_restore_that_reads_for_hours_keeps_what_it_has_read(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = install()
    commit(pipeline, "first", range(30))
    pipeline.settle()
    blobs = blobs_of(pipeline)
    backups = backups_of(pipeline)
    backup = backups.create().backup
    utime, touched, collected = os.utime, set[str](), []

    def touch(path: Path) -> None:
        utime(path)
        touched.add(path.name)

    def meanwhile(done: int, total: int) -> None:
        if touched:
            collected.append(collect_all(pipeline, monkeypatch, touched).staged)
        pipeline.clock.advance(3600)

    monkeypatch.setattr(os, "utime", touch)
    backups.restore(backup.id, progress=meanwhile)
    assert len(collected) > 1
    assert blobs_of(pipeline) == blobs


def test_blobs_are_pinned_again_when_the_catalog_took_long(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = install()
    commit(pipeline, "first", range(5))
    pipeline.settle()
    write_copy, pin, did = pipeline.catalog.write_copy, pipeline.store.pin_blobs, []

    def slowly(file: Path) -> None:
        write_copy(file)
        pipeline.clock.advance(3000)
        did.append("copied")

    def pinned(refs: Iterable[BlobRef]) -> None:
        pin(refs)
        did.append("pinned")

    monkeypatch.setattr(pipeline.catalog, "write_copy", slowly)
    monkeypatch.setattr(pipeline.store, "pin_blobs", pinned)
    monkeypatch.setattr(os, "utime", lambda path: did.append(path.name.partition("-")[0]))
    backups_of(pipeline).create()
    assert did == ["pinned", "copied", "pinned", "backup"], "and the copy is touched"


def test_a_restored_catalog_goes_on_above_every_number_that_was_given_since(
    install: Install,
) -> None:
    pipeline = install()
    commit(pipeline, "first", range(10))
    pipeline.settle()
    backup = backups_of(pipeline).create().backup
    pipeline.clock.advance(60)
    with pipeline.producer.batch("tracks", "lost") as batch:
        batch.upsert(["lost"], VECTORS[:1])
    lost = batch.commit
    wipe(pipeline)

    pipeline = install()
    done = backups_of(pipeline).restore(backup.id, with_catalog=True)
    now = pipeline.catalog.collections.get("tracks")
    assert done.generations == {"tracks": now.generation}
    assert now.generation > lost.generation + 1000
    assert now.epoch == lost.epoch
    # What was lost is not taken for what comes, and is built in full.
    assert not pipeline.catalog.collections.log("tracks", [lost.generation]).stamps.get(
        lost.generation
    )
    pipeline.settle()
    newest = pipeline.store.newest_release()
    assert newest is not None
    manifest = pipeline.store.version("similar", newest.components["similar"])
    assert manifest.covers == {"tracks": now.generation}
    assert manifest.entries == 10


def test_where_there_is_a_release_a_restored_one_is_held_unless_told_otherwise(
    install: Install,
) -> None:
    pipeline = install()
    commit(pipeline, "first", range(10))
    pipeline.settle()
    old = answers(pipeline)
    backups = backups_of(pipeline)
    backup = backups.create().backup
    commit(pipeline, "second", range(10, 60))
    pipeline.settle()
    assert answers(pipeline) != old
    held = backups.restore(backup.id, reason="too many tracks").release
    assert set(held.holds) == {"similar", "cache"}
    assert held.reason == "too many tracks"
    pipeline.settle()
    assert answers(pipeline) == old
    let_go = backups.restore(backup.id, hold=False).release
    assert let_go.holds == {}
    pipeline.settle()
    assert answers(pipeline) != old  # it follows its source again


def test_a_backup_that_does_not_fit_here_is_refused_before_anything_is_changed(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = install()
    commit(pipeline, "first", range(10))
    pipeline.settle()
    backups = backups_of(pipeline)
    with_catalog = backups.create().backup
    without = backups.create(with_catalog=False)
    assert without.manifest.catalog is None
    before = everything_in(pipeline.settings.artifacts_dir)
    with pytest.raises(CatalogNotEmptyError, match="holds tracks already"):
        backups.restore(with_catalog.id, with_catalog=True)
    with pytest.raises(BackupRefusedError, match="'indexrelay', not 'staging'"):
        backups.restore(with_catalog.id, namespace="staging")
    with pytest.raises(BackupUnknownError, match="there is no backup '20200101_000000'"):
        backups.restore("20200101_000000")
    monkeypatch.setattr(
        "indexrelay.operations.backups.restore.shutil.disk_usage",
        lambda _: type("Usage", (), {"free": 10}),
    )
    with pytest.raises(BackupRefusedError, match=r"needs [\d,]+ bytes in .* and 10 are free"):
        backups.restore(with_catalog.id)
    assert everything_in(pipeline.settings.artifacts_dir) == before
    wipe(pipeline, artifacts=False)
    pipeline = install()
    with pytest.raises(BackupRefusedError, match="made without the catalog"):
        backups_of(pipeline).restore(without.backup.id, with_catalog=True)


def test_a_release_that_cannot_be_committed_takes_the_rows_of_the_catalog_back(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = install()
    commit(pipeline, "first", range(10))
    pipeline.settle()
    backup = backups_of(pipeline).create().backup
    wipe(pipeline)
    pipeline = install()

    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr(pipeline.store, "restore", full)
        with pytest.raises(OSError, match="No space left"):
            backups_of(pipeline).restore(backup.id, with_catalog=True)
    assert pipeline.catalog.collections.all() == []
    assert pipeline.store.newest_release() is None
    assert not [path for path in pipeline.store.staging.iterdir() if path.suffix == ".tmp"]
    assert backups_of(pipeline).restore(backup.id, with_catalog=True).release.number == 2


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("form", ["file", "folder", "encrypted"])
def test_what_is_interrupted_leaves_nothing(
    install: Install, tmp_path: Path, form: str, stop: type[BaseException]
) -> None:
    more: dict[str, Any] = {"format": "folder"} if form == "folder" else {}
    if form == "encrypted":
        key = tmp_path / "key.txt"
        more = {"recipients": [generate_identity(key)], "identity_file": key}
    pipeline = install(backups=more)
    commit(pipeline, "first", range(10))
    pipeline.settle()
    backups = backups_of(pipeline)
    pressed: list[int] = []

    def press(done: int, total: int) -> None:
        pressed.append(done)
        if done > total // 2:
            raise stop

    with pytest.raises(stop):
        backups.create(progress=press)
    assert pressed
    left = [path.name for path in backups.folder.path.iterdir()]
    assert left == [".indexrelay-lock"]
    backup = backups.create().backup
    before = everything_in(pipeline.settings.artifacts_dir)
    with pytest.raises(stop):
        backups.restore(backup.id, progress=press)
    assert everything_in(pipeline.settings.artifacts_dir) == before


def test_a_backup_is_its_owners_alone(install: Install) -> None:
    pipeline = install()
    commit(pipeline, "first", range(5))
    pipeline.settle()
    backup = backups_of(pipeline).create().backup
    assert stat.S_IMODE(backup.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(backup.path.parent.stat().st_mode) == 0o700


def test_what_is_corrupt_or_of_two_histories_is_not_backed_up(install: Install) -> None:
    pipeline = install()
    backups = backups_of(pipeline)
    with pytest.raises(NothingReleasedError):
        backups.create()
    commit(pipeline, "first", range(10))
    pipeline.settle()
    early = backups.create().backup
    pipeline.corrupt("cache")
    with pytest.raises(BackupSourceError, match="blobs/sha256/"):
        backups.create()
    assert [each.id for each in backups.folder.all()] == [early.id]
    wipe(pipeline, artifacts=False)
    # Another catalog of the same epoch, which never committed what the release covers.
    pipeline = install()
    backups = backups_of(pipeline)
    backups.restore(early.id, with_catalog=True)
    with pipeline.catalog._database.write() as connection:
        connection.exec_driver_sql("UPDATE indexrelay_collections SET generation = 0, restored = 0")
        connection.exec_driver_sql("DELETE FROM indexrelay_batches")
    with pytest.raises(BackupSourceError, match="does not have any more"):
        backups.create()
    pipeline.catalog.collections.drop("tracks")  # as in a catalog that is another one
    with pytest.raises(BackupSourceError, match=r"see that catalog\.url is the right one"):
        backups.create()
    assert backups.create(with_catalog=False).manifest.catalog is None


def test_old_backups_go_when_a_new_one_is_there_and_two_are_never_made_at_once(
    install: Install,
) -> None:
    pipeline = install(backups={"keep_count": 2})
    commit(pipeline, "first", range(5))
    pipeline.settle()
    backups = backups_of(pipeline)
    ids = []
    for _ in range(3):
        created = backups.create()
        ids.append(created.backup.id)
        pipeline.clock.advance(60)
    assert [each.id for each in created.removed] == ids[:1]
    assert [each.id for each in backups.folder.all()] == ids[:0:-1]
    # The second of the same moment takes the next second.
    assert backups.create().backup.id == "20260101_000300"
    assert backups.create().backup.id == "20260101_000301"
    with backups.folder.writing(), pytest.raises(BackupsBusyError, match="another process"):
        backups_of(pipeline).create()
