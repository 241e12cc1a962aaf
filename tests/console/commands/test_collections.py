"""``indexrelay collections``: what there is, and the way to another dimension."""

import io
import json
import sys
from pathlib import Path

import pytest

from indexrelay.storage.errors import CollectionMismatchError
from tests.console.conftest import CONFIG, Run, commit

pytestmark = pytest.mark.server


class Terminal(io.StringIO):
    """Somebody who types one line."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """Settings with one collection of 20 entries; nothing is built."""
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG)
    commit(config, "first", 20)
    return config


def test_collections_are_listed(run: Run, filled: Path) -> None:
    at = ("--config", str(filled))
    document = json.loads(run("collections", "list", "--json", *at).out)
    assert document["collections"]["tracks"]["entries"] == 20
    assert "tracks" in run("collections", "list", *at).out


def test_one_is_shown_with_what_is_made_of_it(run: Run, filled: Path) -> None:
    at = ("--config", str(filled))
    document = json.loads(run("collections", "show", "tracks", "--json", *at).out)
    assert (document["facts"]["generation"], document["last_batches"]) == (1, ["first"])
    assert set(document["components"]) == {"map", "map_cache"}
    assert len(document["epoch"]) == 16
    shown = run("collections", "show", "tracks", *at).out
    assert "map_cache" in shown
    missing = run("collections", "show", "track", *at)
    assert missing.code == 2
    assert "did you mean 'tracks'" in missing.err


def test_one_that_holds_nothing_yet_is_shown(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG)
    said = run("collections", "show", "tracks", "--config", str(config))
    assert said.code == 0
    assert "nothing was committed yet" in said.out


def test_the_way_to_another_dimension_is_the_one_that_the_error_names(
    run: Run, filled: Path
) -> None:
    at = ("--config", str(filled))
    filled.write_text(CONFIG.replace("dimension = 3", "dimension = 4"))
    with pytest.raises(CollectionMismatchError, match="indexrelay collections drop tracks"):
        commit(filled, "second", 1)
    assert "indexrelay collections drop " in run("collections", "show", "tracks", *at).out
    said = run("collections", "drop", "tracks", "--yes", "--json", *at)
    assert said.code == 0
    dropped = json.loads(said.out)["dropped"]
    assert dropped == {
        "collection": "tracks",
        "entries": 20,
        "generation": 1,
        "components": ["map", "map_cache"],
    }
    filled.write_text(CONFIG)
    commit(filled, "first", 2)  # the batch ids went, too
    found = json.loads(run("collections", "show", "tracks", "--json", *at).out)
    assert (found["facts"]["entries"], found["facts"]["generation"]) == (2, 1)


@pytest.mark.parametrize(("answer", "gone"), [("n", False), ("", False), ("y", True)])
def test_a_person_is_asked_first(
    run: Run, filled: Path, monkeypatch: pytest.MonkeyPatch, answer: str, gone: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
    at = ("--config", str(filled))
    said = run("collections", "drop", "tracks", *at)
    assert said.code == (0 if gone else 1)
    assert "20 entries" in said.err
    assert not said.out.startswith(" ")
    assert ("is dropped" in said.out) is gone
    listed = json.loads(run("collections", "list", "--json", *at).out)["collections"]["tracks"]
    assert listed["entries"] == (0 if gone else 20)


def test_without_a_terminal_it_takes_yes(run: Run, filled: Path) -> None:
    said = run("collections", "drop", "tracks", "--config", str(filled))
    assert said.code == 2
    assert "--yes" in said.err
    listed = run("collections", "list", "--json", "--config", str(filled)).out
    assert json.loads(listed)["collections"]["tracks"]["entries"] == 20


def test_what_is_not_there_cannot_be_dropped(run: Run, filled: Path) -> None:
    said = run("collections", "drop", "trucks", "--yes", "--config", str(filled))
    assert said.code == 2
    assert "did you mean 'tracks'" in said.err
