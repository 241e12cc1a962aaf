"""A restore that is killed, distrusted or torn leaves what was there, and can be done again."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from indexrelay.operations.backups import Backups
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactStore, ReleaseUntrustedError, SigningKey
from indexrelay.storage.backups import BackupFolder
from indexrelay.storage.catalog import Catalog
from tests.operations.backups.conftest import Install, commit, settings_of

CALLS = ("open", "fsync", "link", "unlink", "rename", "mkdir", "fchmod")


def killed_at(step: int, act: Callable[[], object]) -> bool:
    """Run ``act`` in a child that kills itself at its ``step``-th call; whether it got that far."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child never comes back
        steps = iter(range(step + 1))

        def dying(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                if next(steps) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return wrapped

        try:
            for name in CALLS:
                setattr(os, name, dying(getattr(os, name)))
            act()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def kills(act: Callable[[], object], *, every: int) -> Iterator[int]:
    """Kill ``act`` at every so many calls, until it ends before it is killed; yields how often."""
    count = 0
    while killed_at(count * every, act):
        count += 1
        yield count


@pytest.fixture
def settings(install: Install) -> Settings:
    """An installation with a release, which nothing has open any more."""
    pipeline = install()
    commit(pipeline, "first", range(5))
    pipeline.settle()
    pipeline.close()
    return pipeline.settings


def act_on(settings: Settings, act: Callable[[Backups], object]) -> None:
    """With what a process of its own opens."""
    catalog = Catalog.open(settings.catalog_url)
    try:
        act(Backups(settings, store=ArtifactStore.of(settings), open_catalog=lambda: catalog))
    finally:
        catalog.close()


def wipe(settings: Settings) -> None:
    shutil.rmtree(settings.artifacts_dir, ignore_errors=True)
    for path in settings.data_dir.glob("catalog.db*"):
        path.unlink()


def test_a_kill_at_any_point_of_a_backup_leaves_a_sound_one_or_none(settings: Settings) -> None:
    folder = BackupFolder.of(settings)
    seen, killed = set(), 0
    for killed in kills(lambda: act_on(settings, Backups.create), every=2):  # noqa: B007
        found = folder.all()
        seen.add(len(found))
        assert len(found) < 2
        for each in found:
            act_on(settings, lambda backups, id_=each.id: backups.verify(id_))  # type: ignore[misc]
        shutil.rmtree(folder.path, ignore_errors=not found)
    assert killed > 10
    assert seen == {0, 1}
    shutil.rmtree(folder.path)
    folder.path.mkdir()
    (folder.path / ".indexrelay-20200101_000000.partial").write_bytes(b"of one that was killed")
    act_on(settings, Backups.create)
    assert len(list(folder.path.iterdir())) == 2  # the backup of now, and the lock


def test_a_kill_at_any_point_of_a_restore_leaves_a_whole_release_or_none(
    settings: Settings,
) -> None:
    act_on(settings, Backups.create)
    [backup] = BackupFolder.of(settings).all()
    components = ArtifactStore.of(settings).release(1).components

    def restore(backups: Backups) -> None:
        backups.restore(backup.id, with_catalog=True)

    seen, killed = set(), 0
    wipe(settings)
    for killed in kills(lambda: act_on(settings, restore), every=23):  # noqa: B007
        store, catalog = ArtifactStore.of(settings), Catalog.open(settings.catalog_url)
        newest, kept = store.newest_release(), catalog.collections.all()
        seen.add((newest is not None, bool(kept)))
        assert store.broken_releases == {}
        if newest is not None:
            assert newest.components == components
            for name, version in components.items():
                store.open_version(name, version)
        catalog.close()
        if not kept:  # the same once more is all that it takes
            act_on(settings, restore)
            assert ArtifactStore.of(settings).newest_release() is not None
        wipe(settings)
    assert killed > 5
    assert (False, True) not in seen, "no catalog comes back without its release"
    assert (False, False) in seen


def test_where_releases_have_to_be_signed_only_what_a_trusted_key_signed_is_restored(
    install: Install, tmp_path: Path
) -> None:
    key, other = tmp_path / "key.pem", tmp_path / "other.pem"
    for path in (key, other):
        SigningKey.generate().write(path)
    pipeline = install()
    commit(pipeline, "first", range(5))
    pipeline.settle()
    pipeline.close()

    def signing(key_file: Path, **more: Any) -> Settings:
        # A pipeline's places are its own, keys among them.
        artifacts = {"signing_key_file": key_file, **more}
        return settings_of(artifacts=artifacts, data_dir=pipeline.settings.data_dir)

    ids: dict[str, str] = {}
    act_on(signing(key), lambda backups: ids.update(unsigned=backups.create().backup.id))
    ArtifactStore.of(signing(other)).sign_release(1)
    act_on(signing(key), lambda backups: ids.update(by_another=backups.create().backup.id))
    ArtifactStore.of(signing(key)).sign_release(1)
    act_on(signing(key), lambda backups: ids.update(signed=backups.create().backup.id))
    settings = signing(key, trusted_keys=[SigningKey.read(key).public])
    wipe(settings)

    def distrusted(backups: Backups) -> None:
        for name, reason in {"unsigned": "it is not signed", "by_another": "has not"}.items():
            with pytest.raises(ReleaseUntrustedError, match=reason):
                backups.verify(ids[name])
            with pytest.raises(ReleaseUntrustedError, match=reason):
                backups.restore(ids[name], with_catalog=True)

    act_on(settings, distrusted)
    assert ArtifactStore.of(settings).release_numbers() == []
    act_on(settings, lambda backups: backups.restore(ids["signed"], with_catalog=True))
    newest = ArtifactStore.of(settings).newest_release()  # which takes none but what is signed
    assert newest is not None
    assert newest.number == 2
