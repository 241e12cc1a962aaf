"""The folder of backups: what counts as one, which of them stay, and who may write."""

from datetime import timedelta
from pathlib import Path

import pytest

from indexrelay.schemas.backups import BackupSettings, backup_id, backup_time
from indexrelay.schemas.settings import Settings
from indexrelay.storage.backups import (
    BackupFolder,
    StoredBackup,
    newest_backup_at,
    superfluous,
)
from indexrelay.storage.errors import BackupsBusyError, BackupUnknownError

NOW = backup_time("20241105_143000")


def test_only_whole_backups_of_ones_own_namespace_count(tmp_path: Path) -> None:
    folder = BackupFolder(tmp_path, "prod")
    assert BackupFolder(tmp_path / "none", "prod").all() == []
    for name in (
        "prod-20241105_143000.tar.zst",
        "prod-20241106_143000.tar.zst.age",
        ".prod-20241107_143000.partial",
        "prod-20241108_143000.tar",
        "prod-20241109_143000.tar.zst.old",
        "prod-20241399_143000.tar.zst",
        "prod-20241110_143000",
        "staging-20241111_143000.tar.zst",
        "notes.txt",
    ):
        (tmp_path / name).write_bytes(b"12345")
    (tmp_path / "prod-20241101_000000" / "blobs").mkdir(parents=True)
    (tmp_path / "prod-20241101_000000" / "blobs" / "one").write_bytes(b"123")
    found = folder.all()
    assert [(each.id, each.bytes, each.is_encrypted, each.is_folder) for each in found] == [
        ("20241106_143000", 5, True, False),
        ("20241105_143000", 5, False, False),
        ("20241101_000000", 3, False, True),
    ]
    assert folder.get("20241105_143000").begun_at == NOW
    with pytest.raises(BackupUnknownError, match="did you mean '20241105_143000'"):
        folder.get("20241105_14300")
    settings = Settings.model_validate({"namespace": "prod", "backups": {"dir": tmp_path}})
    assert newest_backup_at(settings, NOW + timedelta(days=1)) == NOW + timedelta(days=1)
    assert newest_backup_at(settings, NOW) == NOW  # the later one is of a clock that was wrong
    assert folder.ahead(NOW) == ["20241106_143000"]
    assert folder.ahead(NOW + timedelta(days=1)) == []


def test_a_writer_removes_what_a_crash_left_and_keeps_the_others_out(tmp_path: Path) -> None:
    folder = BackupFolder(tmp_path / "backups", "prod")
    folder.path.mkdir()
    (folder.path / ".prod-20241107_143000.partial").write_bytes(b"half")
    (folder.path / ".prod-20241108_143000.partial").mkdir()
    (folder.path / ".prod-20241108_143000.partial" / "backup.json").write_bytes(b"{}")
    (folder.path / ".prod-20241108_143000.catalog.partial-wal").write_bytes(b"SQLite's")
    (folder.path / ".staging-20241107_143000.partial").write_bytes(b"of another installation")
    with folder.writing():
        left = {path.name for path in folder.path.iterdir()}
        assert left == {".prod-lock", ".staging-20241107_143000.partial"}
        with pytest.raises(BackupsBusyError), BackupFolder(folder.path, "prod").writing():
            pass
        with BackupFolder(folder.path, "staging").writing():
            pass
    with folder.writing():
        pass


def stored(days: int, size: int = 10) -> StoredBackup:
    id_ = backup_id(NOW - timedelta(days=days))
    return StoredBackup(id=id_, path=Path(f"/backups/prod-{id_}.tar.zst"), bytes=size)


@pytest.mark.parametrize(
    ("limits", "gone"),
    [
        ({"keep_count": False}, []),
        ({"keep_count": 2}, [2, 30]),
        ({"keep_count": False, "keep_seconds": 86_400 * 2.5}, [30]),
        ({"keep_count": False, "keep_bytes": 25}, [2, 30]),
        ({"keep_count": 3, "keep_seconds": 86_400 * 1.5}, [2, 30]),
        ({"keep_count": 1, "keep_seconds": 1, "keep_bytes": 1}, [1, 2, 30]),
    ],
)
def test_backups_go_by_count_age_and_size_and_the_newest_stays(
    limits: dict[str, object], gone: list[int]
) -> None:
    # Those of a clock that was wrong neither go nor count.
    found = [stored(days) for days in (-900, -1, 0, 1, 2, 30)]
    settings = BackupSettings.model_validate(limits)
    later = NOW + timedelta(seconds=10)
    assert superfluous(found, settings, later) == [stored(days) for days in gone]
    assert superfluous([], settings, later) == []
