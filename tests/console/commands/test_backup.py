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


@pytest.fixture
def config(built: Path, tmp_path: Path) -> Path:
    """A copy of an installation with a release, whose Redis is gone."""
    shutil.copytree(
        built.parent,
        tmp_path / "copy",
        ignore=lambda _, names: [name for name in names if "redis" in name or "sock" in name],
    )
    return tmp_path / "copy" / built.name


def released(config: Path) -> int:
    """The number of the newest release: other tests use the same installation before."""
    newest = ArtifactStore.of(load_settings(config, environ={})).newest_release()
    assert newest is not None
    return newest.number


def test_a_backup_is_made_listed_verified_and_restored(run: Run, config: Path) -> None:
    number = released(config)
    said = run("backup", "--config", str(config))
    assert "there is no backup yet" in said.out
    assert f"indexrelay backup create --config {config}" in said.out
    said = run("backup", "create", "--config", str(config))
    assert said.code == 0
    assert f"of release {number}, with the catalog" in said.out
    listed = json.loads(run("backup", "list", "--json", "--config", str(config)).out)["backups"]
    [facts] = listed
    assert (facts["release"], facts["catalog"], facts["encrypted"]) == (number, True, False)
    assert facts["components"] == ["map", "map_cache"]
    assert facts["generations"] == {"tracks": 1}
    assert Path(facts["path"]).stat().st_size == facts["bytes"]
    table = run("backup", "--config", str(config)).out
    assert facts["id"] in table
    assert "map, map_cache" in table
    assert "with the catalog" in table
    said = run("backup", "verify", "--config", str(config))
    assert (said.code, facts["id"] in said.out) == (0, True)

    said = run("backup", "restore", facts["id"], "--config", str(config))
    assert said.code == 0
    assert f"release {number + 1} serves what release {number} served" in said.out
    assert f"indexrelay lift --config {config} map map_cache" in said.out.replace("\n", " ")
    shutil.rmtree(config.parent / "indexrelay-data" / "artifacts")
    for path in (config.parent / "indexrelay-data").glob("catalog.db*"):
        path.unlink()
    said = run(
        "backup", "restore", facts["id"], "--with-catalog", "--json", "--config", str(config)
    )
    document = json.loads(said.out)
    assert document["of_release"] == number
    assert document["held"] == []
    assert document["generations"]["tracks"] > 1
    store = ArtifactStore.of(load_settings(config, environ={}))
    newest = store.newest_release()
    assert newest is not None
    assert newest.number == document["release"]
    assert "@" in newest.by
    audit = AuditLog.of(load_settings(config, environ={})).newest(3)
    assert [(each["action"], each["subject"]) for each in audit] == [
        ("backed_up", facts["id"]),
        ("restored", facts["id"]),
        ("restored", facts["id"]),
    ]
    assert [each.get("with_catalog") for each in audit] == [True, False, True]


def test_what_is_not_sound_is_said_in_one_line_and_exits_3(run: Run, config: Path) -> None:
    for _ in range(2):
        assert run("backup", "create", "--without-catalog", "--config", str(config)).code == 0
    newest, older = json.loads(run("backup", "list", "--json", "--config", str(config)).out)[
        "backups"
    ]
    path = Path(newest["path"])
    path.write_bytes(path.read_bytes()[:-200])
    said = run("backup", "verify", "--all", "--config", str(config))
    assert said.code == 3
    assert f"✗ {newest['id']}: {path} is not sound: it is cut short" in said.out
    assert f"✓ {older['id']}" in said.out
    said = run("backup", "restore", newest["id"], "--config", str(config))
    assert (said.code, said.out) == (1, "")
    assert "is not sound: it is cut short" in said.err
    said = run("backup", "restore", "20200101_000000", "--config", str(config))
    assert said.code == 2
    assert "there is no backup '20200101_000000'" in said.err
    path.write_bytes(b"")
    listed = json.loads(run("backup", "list", "--json", "--config", str(config)).out)["backups"]
    assert "is not sound" in listed[0]["error"]
    assert listed[1]["error"] is None


def test_a_key_is_made_once_and_backups_for_it_are_opened_with_it_alone(
    run: Run, config: Path, tmp_path: Path
) -> None:
    key = tmp_path / "backups.key"
    public = run("backup", "generate-key", str(key)).out.strip()
    assert public.startswith("age1")
    said = run("backup", "generate-key", str(key))
    assert said.code == 2
    assert "File exists" in said.err
    assert public in key.read_text()
    with config.open("a") as file:
        file.write(f'\n[backups]\nrecipients = ["{public}"]\nwith_catalog = false\n')
    assert run("backup", "create", "--config", str(config)).code == 0
    [facts] = json.loads(run("backup", "list", "--json", "--config", str(config)).out)["backups"]
    assert (facts["encrypted"], facts["release"], facts["error"]) == (True, None, None)
    opened = ["--identity", str(key), "--config", str(config)]
    assert run("backup", "verify", *opened).code == 0
    [facts] = json.loads(run("backup", "list", "--json", *opened).out)["backups"]
    number = released(config)
    assert facts["release"] == number
    said = run("backup", "verify", "--config", str(config))
    assert said.code == 3
    assert "--identity FILE" in said.out
    restored = json.loads(run("backup", "restore", facts["id"], "--json", *opened).out)
    assert restored["release"] == number + 1
    with config.open("a") as file:
        file.write('format = "folder"\n')
    said = run("backup", "create", "--config", str(config))
    assert said.code == 2
    assert "a folder is not encrypted" in said.err


def test_ctrl_c_leaves_nothing(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Backups, "_source", lambda *_: pressed)
    assert run("backup", "create", "--config", str(config)).code == 130
    left = [path.name for path in (config.parent / "indexrelay-data" / "backups").iterdir()]
    assert left == [".indexrelay-lock"]
