"""``indexrelay maintenance``: the disk is looked at, cleaned up and read."""

import json
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


def deleted(copied: Path) -> list[dict[str, Any]]:
    """The lines of the audit log about what was deleted."""
    log = AuditLog.of(load_settings(copied, environ={}))
    return [line for line in log.newest(100) if line["action"] == AuditAction.DELETED]


def test_what_takes_the_disk_is_listed_by_component_version_and_blob(
    run: Run, copied: Path
) -> None:
    assert run("backup", "create", "--config", str(copied)).code == 0
    said = run("maintenance", "disk-usage", "--blobs", "--json", "--config", str(copied))
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
    page = run("maintenance", "disk-usage", "--versions", "--blobs", "--config", str(copied)).out
    for title in ("Disk usage", "Versions", "Blobs", "map_cache"):
        assert title in page


def test_a_cleanup_shows_first_what_it_would_remove(run: Run, copied: Path) -> None:
    with copied.open("a") as file:
        file.write("\n[backups]\nkeep_count = 5\n")
    for _ in range(2):
        run("backup", "create", "--without-catalog", "--config", str(copied))
    copied.write_text(copied.read_text().replace("keep_count = 5", "keep_count = 1"))
    folder = copied.parent / "indexrelay-data" / "backups"
    newest, oldest = sorted((path.name for path in folder.glob("*.zst")), reverse=True)
    said = run("maintenance", "cleanup", "--dry-run", "--config", str(copied))
    assert said.code == 0
    assert "would remove" in said.out
    oldest_id = oldest.removeprefix("indexrelay-").removesuffix(".tar.zst")
    assert oldest_id in said.out
    assert (folder / oldest).exists()
    assert deleted(copied) == []
    removed = json.loads(run("maintenance", "cleanup", "--json", "--config", str(copied)).out)
    assert (removed["dry_run"], removed["backups"]) == (False, [oldest_id])
    assert removed["blobs"] == 0  # everything is young, or released
    assert [path.name for path in folder.glob("*.zst")] == [newest]
    [line] = deleted(copied)
    assert (line["subject"], line["backups"]) == ("backups", [oldest_id])


def test_what_a_person_had_removed_from_the_artifacts_is_in_the_audit_log(copied: Path) -> None:
    collected = Collected(
        releases=(1, 2), versions=(("map", "a" * 64),), blobs=("b" * 64, "c" * 64), bytes=70
    )
    with Installation(load_settings(copied, environ={})) as installation:
        audit_collected(installation, collected, dry_run=True)
        audit_collected(installation, Collected(staged=3), dry_run=False)
        assert deleted(copied) == []
        audit_collected(installation, collected, dry_run=False)
    [line] = deleted(copied)
    assert line["subject"] == "artifacts"
    assert line["releases"] == ["1", "2"]
    assert line["versions"] == [f"map/{'a' * 64}"]
    assert line["blobs"] == ["b" * 64, "c" * 64]
    assert line["bytes"] == 70


def test_a_scrub_reads_every_file_and_names_the_corrupt_one(run: Run, copied: Path) -> None:
    said = run("maintenance", "scrub", "--config", str(copied))
    assert said.code == 0
    assert "all of it is as its digests say" in said.out
    store = ArtifactStore.of(load_settings(copied, environ={}))
    release = store.newest_release()
    assert release is not None
    opened = store.open_version("map_cache", release.components["map_cache"])
    path = next(iter(opened.files.values()))
    path.chmod(0o600)
    path.write_bytes(bytes(len(path.read_bytes())))
    said = run("maintenance", "scrub", "--json", "--config", str(copied))
    assert said.code == 3
    [corrupt] = json.loads(said.out)["corrupt"]
    assert corrupt["digest"] == path.name
    assert corrupt["components"] == ["map_cache"]
    said = run("maintenance", "scrub", "map_cache", "--config", str(copied))
    assert said.code == 3
    assert f"indexrelay rebuild --config {copied} map_cache --full" in said.out
    assert run("maintenance", "scrub", "map", "--config", str(copied)).code == 0
    assert "did you mean 'map'" in run("maintenance", "scrub", "mop", "--config", str(copied)).err
