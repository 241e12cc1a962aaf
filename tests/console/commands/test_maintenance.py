"""``indexrelay maintenance``: the disk is looked at, cleaned up and read."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from indexrelay.console.commands.maintenance import audit_collected
from indexrelay.console.installation import Installation
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.artifacts import ArtifactStore, Collected
from indexrelay.storage.audit import AuditAction, AuditLog
from tests.console.conftest import Run

pytestmark = pytest.mark.server


@pytest.fixture
def config(built: Path, tmp_path: Path) -> Path:
    """A copy of an installation with a release, whose Redis is gone, and what others did to it."""
    left = ("redis", "sock", "audit")
    shutil.copytree(
        built.parent,
        tmp_path / "copy",
        ignore=lambda _, names: [name for name in names if any(part in name for part in left)],
    )
    return tmp_path / "copy" / built.name


def deleted(config: Path) -> list[dict[str, Any]]:
    """The lines of the audit log about what was deleted."""
    log = AuditLog.of(load_settings(config, environ={}))
    return [line for line in log.newest(100) if line["action"] == AuditAction.DELETED]


def test_what_takes_the_disk_is_listed_by_component_version_and_blob(
    run: Run, config: Path
) -> None:
    assert run("backup", "create", "--config", str(config)).code == 0
    said = run("maintenance", "disk-usage", "--blobs", "--json", "--config", str(config))
    usage = json.loads(said.out)
    assert [each["component"] for each in usage["components"]] == ["map", "map_cache"]
    for each in usage["components"]:
        [version] = each["versions"]
        assert version["releases"] == [1]
        assert each["bytes"] == version["bytes"] == version["own_bytes"] + each["shared_bytes"]
    assert sum(each["bytes"] for each in usage["blob_list"]) == usage["blob_bytes"]
    assert usage["unnamed_bytes"] == 0
    assert usage["catalog_bytes"] > 0
    assert usage["backup_bytes"] > 0
    page = run("maintenance", "disk-usage", "--versions", "--blobs", "--config", str(config)).out
    for title in ("Disk usage", "Versions", "Blobs", "map_cache"):
        assert title in page


def test_a_cleanup_shows_first_what_it_would_remove(run: Run, config: Path) -> None:
    with config.open("a") as file:
        file.write("\n[backups]\nkeep_count = 5\n")
    for _ in range(2):
        run("backup", "create", "--without-catalog", "--config", str(config))
    config.write_text(config.read_text().replace("keep_count = 5", "keep_count = 1"))
    folder = config.parent / "indexrelay-data" / "backups"
    newest, oldest = sorted((path.name for path in folder.glob("*.zst")), reverse=True)
    said = run("maintenance", "cleanup", "--dry-run", "--config", str(config))
    assert said.code == 0
    assert "would remove" in said.out
    oldest_id = oldest.removeprefix("indexrelay-").removesuffix(".tar.zst")
    assert oldest_id in said.out
    assert (folder / oldest).exists()
    assert deleted(config) == []
    removed = json.loads(run("maintenance", "cleanup", "--json", "--config", str(config)).out)
    assert (removed["dry_run"], removed["backups"]) == (False, [oldest_id])
    assert removed["blobs"] == 0  # everything is young, or released
    assert [path.name for path in folder.glob("*.zst")] == [newest]
    [line] = deleted(config)
    assert (line["subject"], line["backups"]) == ("backups", [oldest_id])


def test_what_a_person_had_removed_from_the_artifacts_is_in_the_audit_log(config: Path) -> None:
    collected = Collected(
        releases=(1, 2), versions=(("map", "a" * 64),), blobs=("b" * 64, "c" * 64), bytes=70
    )
    with Installation(load_settings(config, environ={})) as installation:
        audit_collected(installation, collected, dry_run=True)
        audit_collected(installation, Collected(staged=3), dry_run=False)
        assert deleted(config) == []
        audit_collected(installation, collected, dry_run=False)
    [line] = deleted(config)
    assert line["subject"] == "artifacts"
    assert line["releases"] == ["1", "2"]
    assert line["versions"] == [f"map/{'a' * 64}"]
    assert line["blobs"] == ["b" * 64, "c" * 64]
    assert line["bytes"] == 70


def test_a_scrub_reads_every_file_and_names_the_corrupt_one(run: Run, config: Path) -> None:
    said = run("maintenance", "scrub", "--config", str(config))
    assert said.code == 0
    assert "all of it is as its digests say" in said.out
    store = ArtifactStore.of(load_settings(config, environ={}))
    release = store.newest_release()
    assert release is not None
    opened = store.open_version("map_cache", release.components["map_cache"])
    path = next(iter(opened.files.values()))
    path.chmod(0o600)
    path.write_bytes(bytes(len(path.read_bytes())))
    said = run("maintenance", "scrub", "--json", "--config", str(config))
    assert said.code == 3
    [corrupt] = json.loads(said.out)["corrupt"]
    assert corrupt["digest"] == path.name
    assert corrupt["components"] == ["map_cache"]
    said = run("maintenance", "scrub", "map_cache", "--config", str(config))
    assert said.code == 3
    assert f"indexrelay rebuild --config {config} map_cache --full" in said.out
    assert run("maintenance", "scrub", "map", "--config", str(config)).code == 0
    assert "did you mean 'map'" in run("maintenance", "scrub", "mop", "--config", str(config)).err
