"""What people had done is in the audit log, and `indexrelay audit` shows it."""

import contextlib
import getpass
import json
import sqlite3
from pathlib import Path

import pytest

from tests.console.conftest import Run, build, commit

CONFIG = """
[collections.tracks]
dimension = 3
[components.cache]
kind = "embedding_cache"
from = "tracks"
[components.other]
kind = "embedding_cache"
from = "tracks"
"""


@pytest.mark.server
def test_whatever_a_person_has_done_is_in_the_audit_log(run: Run, tmp_path: Path) -> None:
    from indexrelay.streams import EmbeddedServer

    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG)
    at = ("--config", str(config))
    assert "nobody had anything done" in run("audit", *at).err
    with EmbeddedServer(tmp_path / "indexrelay-data"):
        commit(config, "first", 20)
        build(config)
        for command in (
            ["pause", "cache", "other", "--reason", "moving"],
            ["resume", "cache"],
            ["hold", "cache", "--reason", "redis://:hush@host"],
            ["lift", "cache", "other"],
            ["rollback", "1", "--component", "cache"],
            ["rebuild", "cache", "--full"],
            ["collections", "drop", "tracks", "--yes"],
        ):
            said = run(*command, *at)
            assert said.code == 0, said.err

    lines = json.loads(run("audit", "--json", *at).out)["lines"]

    assert [(line["action"], line["subject"]) for line in lines] == [
        ("released", "release 1"),
        ("paused", "cache"),
        ("paused", "other"),
        ("resumed", "cache"),
        ("held", "cache"),
        ("lifted", "cache"),
        ("rolled_back", "release 1"),
        ("rebuild_requested", "cache"),
        ("deleted", "tracks"),
    ]
    assert lines[0]["who"].startswith("rebuilder/")
    assert lines[0]["components"] == ["cache", "other"]
    assert all(line["who"].startswith(f"{getpass.getuser()}@") for line in lines[1:])
    assert (lines[1]["reason"], lines[6]["release"], lines[7]["full"]) == ("moving", 4, True)
    shown = run("audit", "--last", "3", *at)
    assert "rolled_back" in shown.out
    assert "lifted" not in shown.out
    assert "hush" not in run("audit", *at).out


def test_a_catalog_of_an_earlier_release_that_is_taken_over_is_in_the_audit_log(
    run: Run, tmp_path: Path
) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG)
    at = ("--config", str(config))
    assert run("collections", "list", *at).code == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "indexrelay-data" / "catalog.db")) as opened:
        opened.execute("DROP TABLE indexrelay_notices")
        opened.execute("ALTER TABLE indexrelay_batches DROP COLUMN digest")
        opened.commit()
    for _ in range(2):
        assert run("collections", "list", *at).code == 0
    [line] = json.loads(run("audit", "--json", *at).out)["lines"]
    assert (line["action"], line["subject"]) == ("migrated", "catalog")
    assert line["added"] == ["indexrelay_notices", "indexrelay_batches.digest"]
