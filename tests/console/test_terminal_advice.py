"""Advice is printed in a state, pasted there, and works."""

import json
import re
import shlex
from contextlib import closing
from pathlib import Path

import pytest

from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import EmbeddedServer
from tests.console.conftest import Run, Said, build, commit
from tests.fixtures.backups import copy_database

pytestmark = pytest.mark.server

CONFIG = """
[collections.tracks]
dimension = 3

[components.cache]
kind = "embedding_cache"
from = "tracks"
max_shrink = 0.1
"""
_COMMAND = re.compile(r"indexrelay (?:(?!; |, or |, and |\)).)+")


def advised(said: Said) -> list[str]:
    """The commands in what was said, as a person would copy them.

    A sentence in a table may be wrapped; the advice below it says the command in one piece.
    """
    lines = (said.out + said.err).splitlines()
    lines = [line for line in lines if line.startswith(("  →", "✓", "error: "))]
    return [found[0].strip() for line in lines for found in _COMMAND.finditer(line)]


class Terminal:
    """Runs commands, and pastes those that were printed."""

    def __init__(self, run: Run, config: Path) -> None:
        self._run = run
        self.config = config

    def type(self, command: str) -> Said:
        return self._run(*shlex.split(command), "--config", str(self.config))

    def paste(self, said: Said, verb: str) -> Said:
        """The one command with ``verb`` that was advised, as it was printed."""
        (command,) = {each for each in advised(said) if each.split()[1] == verb}
        assert f"--config {self.config}" in command
        return self._run(*shlex.split(command)[1:])

    def release(self) -> int:
        store = ArtifactStore(self.config.parent / "indexrelay-data" / "artifacts")
        newest = store.newest_release()
        return 0 if newest is None else newest.number

    def component(self) -> dict[str, object]:
        listed = json.loads(self.type("components --json").out)
        facts: dict[str, object] = listed["components"]["cache"]
        return facts


@pytest.fixture
def terminal(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """On a screen that is narrower than the commands: they are neither cut nor wrapped."""
    monkeypatch.setenv("COLUMNS", "40")
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG)
    commit(config, "first", 20)
    return Terminal(run, config)


def test_each_advice_works_in_the_state_that_it_is_printed_in(
    terminal: Terminal,
) -> None:
    # Nothing is released: every command that needs a release says how to get one.
    for command in ("components show cache", "search cache --id t1", "releases show"):
        said = terminal.type(command)
        assert said.code == 1
        assert "indexrelay rebuild --config" in said.err
    assert terminal.paste(said, "rebuild").code in (0, 3)  # 3: no rebuilder or reader runs
    assert terminal.release() == 1

    # Held and paused: what was printed ends it, and so does what status advises meanwhile.
    assert terminal.paste(terminal.type("hold cache"), "lift").code == 0
    assert terminal.component()["held"] is None
    assert terminal.paste(terminal.type("rollback 1"), "lift").code == 0
    assert terminal.component()["held"] is None
    assert terminal.type("hold cache").code == 0
    assert terminal.paste(terminal.type("status"), "lift").code == 0
    assert terminal.component()["held"] is None
    assert terminal.type("hold cache").code == 0
    assert terminal.paste(terminal.type("releases show"), "lift").code == 0
    assert terminal.component()["held"] is None
    assert terminal.paste(terminal.type("pause cache"), "resume").code == 0
    assert terminal.component()["paused"] is None
    assert terminal.type("pause cache").code == 0
    assert terminal.paste(terminal.type("status"), "resume").code == 0
    assert terminal.component()["paused"] is None


def test_the_advice_after_a_refusal_to_shrink_does_not_lead_to_the_same_refusal(
    terminal: Terminal,
) -> None:
    assert terminal.type("rebuild --here").code in (0, 3)
    before = terminal.release()
    commit(terminal.config, "second", 20, deletes=10)
    refused = terminal.type("rebuild --here")
    assert "count_kept" in refused.out
    for said in (refused, terminal.type("status"), terminal.type("reconcile")):
        rebuilds = [each for each in advised(said) if " rebuild " in each]
        assert rebuilds, advised(said)
        assert all(each.endswith("cache --force --here") for each in rebuilds), rebuilds
    assert terminal.paste(said, "rebuild").code == 0
    assert terminal.type("rebuild --here").code in (0, 3)
    assert terminal.release() == before + 1


def test_a_catalog_from_an_older_backup_continues_by_the_command_that_every_command_prints(
    terminal: Terminal,
) -> None:
    data, backup = terminal.config.parent / "indexrelay-data", terminal.config.with_name("old.db")
    with EmbeddedServer(data):
        for since in range(3):  # its numbers stay below those that were lost, reach or pass them
            copy_database(data / "catalog.db", backup)
            commit(terminal.config, f"lost-{since}", 25)
            build(terminal.config)
            copy_database(backup, data / "catalog.db")
            for number in range(since):
                commit(terminal.config, f"new-{since}-{number}", 21 + number)
            others = ["check", "reconcile", "rebuild --here"] if since == 2 else []
            for door in ("collections show tracks", *others, "status"):
                said = terminal.type(door)
                assert said.code == 3 or door == "collections show tracks", door
                assert "the catalog went back in time" in " ".join(said.out.split()), door
            restored = terminal.paste(said, "collections")
            assert (restored.code, "what the backup lacks" in restored.out) == (0, True)
            assert "nothing to restore" in terminal.paste(said, "collections").err
            assert terminal.component()["entries"] == 25
            assert terminal.paste(restored, "rebuild").code in (0, 3)  # no rebuilder runs
            build(terminal.config)
            assert terminal.component()["entries"] == 20 + since
            assert "back in time" not in terminal.type("status").out


def test_dead_letters_are_listed_by_the_command_that_status_names(terminal: Terminal) -> None:
    with closing(Catalog.open(load_settings(terminal.config, environ={}).catalog_url)) as catalog:
        catalog.dead_letters.add(stream="s", entry_id="1-0", raw=b"{", reason="no JSON")
    listed = terminal.paste(terminal.type("status"), "dead")
    assert (listed.code, "no JSON" in listed.out) == (0, True)
    assert terminal.type("dead drop --all").code == 0
    assert "no dead letters" in terminal.type("dead").out
