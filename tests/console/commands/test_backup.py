"""``indexrelay backup``: made, listed, verified, restored, and refused."""

import json
import shutil
from pathlib import Path

import pytest

from indexrelay.operations.backups import Backups
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.audit import AuditLog
from tests.console.conftest import Run

pytestmark = pytest.mark.server


def test_a_backup_is_made_listed_verified_and_restored(run: Run, copied: Path) -> None:
    said = run("backup", "--config", str(copied))
    assert "there is no backup yet" in said.out
    assert f"indexrelay backup create --config {copied}" in said.out
    said = run("backup", "create", "--config", str(copied))
    assert said.code == 0
    assert "of release 1, with the catalog" in said.out
    listed = json.loads(run("backup", "list", "--json", "--config", str(copied)).out)["backups"]
    [facts] = listed
    assert (facts["release"], facts["catalog"], facts["encrypted"]) == (1, True, False)
    assert facts["components"] == ["map", "map_cache"]
    assert facts["generations"] == {"tracks": 1}
    assert Path(facts["path"]).stat().st_size == facts["bytes"]
    table = run("backup", "--config", str(copied)).out
    assert facts["id"] in table
    assert "map, map_cache" in table
    assert "with the catalog" in table
    said = run("backup", "verify", "--config", str(copied))
    assert (said.code, facts["id"] in said.out) == (0, True)

    said = run("backup", "restore", facts["id"], "--config", str(copied))
    assert said.code == 0
    assert "release 2 serves what release 1 served" in said.out
    assert f"indexrelay lift --config {copied} map map_cache" in said.out.replace("\n", " ")
    shutil.rmtree(copied.parent / "indexrelay-data" / "artifacts")
    for path in (copied.parent / "indexrelay-data").glob("catalog.db*"):
        path.unlink()
    said = run(
        "backup", "restore", facts["id"], "--with-catalog", "--json", "--config", str(copied)
    )
    document = json.loads(said.out)
    assert document["of_release"] == 1
    assert document["held"] == []
    assert document["generations"]["tracks"] > 1
    store = ArtifactStore.of(load_settings(copied, environ={}))
    newest = store.newest_release()
    assert newest is not None
    assert newest.number == document["release"]
    assert "@" in newest.by
    audit = AuditLog.of(load_settings(copied, environ={})).newest(3)
    assert [(each["action"], each["subject"]) for each in audit] == [
        ("backed_up", facts["id"]),
        ("restored", facts["id"]),
        ("restored", facts["id"]),
    ]
    assert [each.get("with_catalog") for each in audit] == [True, False, True]


def test_what_is_not_sound_is_said_in_one_line_and_exits_3(run: Run, copied: Path) -> None:
    for _ in range(2):
        assert run("backup", "create", "--without-catalog", "--config", str(copied)).code == 0
    newest, older = json.loads(run("backup", "list", "--json", "--config", str(copied)).out)[
        "backups"
    ]
    path = Path(newest["path"])
    path.write_bytes(path.read_bytes()[:-200])
    said = run("backup", "verify", "--all", "--config", str(copied))
    assert said.code == 3
    assert f"✗ {newest['id']}: {path} is not sound: it is cut short" in said.out
    assert f"✓ {older['id']}" in said.out
    said = run("backup", "restore", newest["id"], "--config", str(copied))
    assert (said.code, said.out) == (1, "")
    assert "is not sound: it is cut short" in said.err
    said = run("backup", "restore", "20200101_000000", "--config", str(copied))
    assert said.code == 2
    assert "there is no backup '20200101_000000'" in said.err
    path.write_bytes(b"")
    listed = json.loads(run("backup", "list", "--json", "--config", str(copied)).out)["backups"]
    assert "is not sound" in listed[0]["error"]
    assert listed[1]["error"] is None


def test_a_key_is_made_once_and_backups_for_it_are_opened_with_it_alone(
    run: Run, copied: Path, tmp_path: Path
) -> None:
    key = tmp_path / "backups.key"
    public = run("backup", "generate-key", str(key)).out.strip()
    assert public.startswith("age1")
    said = run("backup", "generate-key", str(key))
    assert said.code == 2
    assert "File exists" in said.err
    assert public in key.read_text()
    with copied.open("a") as file:
        file.write(f'\n[backups]\nrecipients = ["{public}"]\nwith_catalog = false\n')
    assert run("backup", "create", "--config", str(copied)).code == 0
    [facts] = json.loads(run("backup", "list", "--json", "--config", str(copied)).out)["backups"]
    assert (facts["encrypted"], facts["release"], facts["error"]) == (True, None, None)
    opened = ["--identity", str(key), "--config", str(copied)]
    assert run("backup", "verify", *opened).code == 0
    [facts] = json.loads(run("backup", "list", "--json", *opened).out)["backups"]
    assert facts["release"] == 1
    said = run("backup", "verify", "--config", str(copied))
    assert said.code == 3
    assert "--identity FILE" in said.out
    restored = json.loads(run("backup", "restore", facts["id"], "--json", *opened).out)
    assert restored["release"] == 2
    with copied.open("a") as file:
        file.write('format = "folder"\n')
    said = run("backup", "create", "--config", str(copied))
    assert said.code == 2
    assert "a folder is not encrypted" in said.err


def test_ctrl_c_leaves_nothing(run: Run, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Backups, "_source", lambda *_: pressed)
    assert run("backup", "create", "--config", str(copied)).code == 130
    left = [path.name for path in (copied.parent / "indexrelay-data" / "backups").iterdir()]
    assert left == [".indexrelay-lock"]
