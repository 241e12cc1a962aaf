"""Modules beside the settings: found from everywhere, and never in place of what is installed."""

import sys
from pathlib import Path

import pytest

from indexrelay.console.importing import make_importable, settings_folder
from tests.console.conftest import Run

KIND = "from indexrelay.components.embedding_cache import EmbeddingCache as {name}\n"
CONFIG = """
[collections.tracks]
dimension = 3

[components.mine]
kind = "{module}:Mine"
from = "tracks"
"""


def test_the_folder_is_that_of_the_settings_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"INDEXRELAY_CONFIG": str(tmp_path / "there" / "file.toml")}
    assert settings_folder(Path("here/file.toml"), named) == tmp_path / "here"
    assert settings_folder(None, named) == tmp_path / "there"
    assert settings_folder(None, {}) == tmp_path


def test_the_folder_comes_once_and_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    make_importable(tmp_path)
    make_importable(tmp_path)
    assert sys.path[-1] == str(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


def test_a_kind_beside_the_settings_is_found_from_another_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG.format(module="kinds_beside_settings"))
    monkeypatch.chdir("/")
    missing = run("check", "--config", str(config))
    assert missing.code == 2
    assert "'kinds_beside_settings' cannot be imported" in missing.err
    (tmp_path / "kinds_beside_settings.py").write_text(KIND.format(name="Mine"))
    assert run("check", "--config", str(config)).code == 0
