"""Files that a component's keys name, as the settings are read."""

import os
from pathlib import Path
from typing import Any

import pytest

from indexrelay.schemas.parameter_files import (
    MAX_FILE_BYTES,
    FileChangedError,
    ParameterFile,
    digested,
    files_in,
    located,
    named,
    recorded,
    with_files,
)
from indexrelay.schemas.settings import ComponentDefinition, Settings
from indexrelay.schemas.settings_file import load_settings

CONFIG = """
[collections.docs]
dimension = 4

[components.find]
kind = "vector_index"
from = "docs"
golden = "golden/queries.jsonl"
"""


def installed(folder: Path, content: str = "queries") -> Path:
    """A settings file, and beside it a file that it names."""
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    (folder / "golden" / "queries.jsonl").write_text(content)
    config = folder / "indexrelay.toml"
    config.write_text(CONFIG)
    return config


def found(settings: Settings) -> ComponentDefinition:
    return settings.components["find"]


def test_a_path_is_relative_to_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = installed(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    file = files_in(found(load_settings(config, environ={})).parameters)["golden"]
    assert file.file == "golden/queries.jsonl"
    assert file.path == tmp_path / "here" / "golden" / "queries.jsonl"
    assert file.read() == b"queries"


def test_the_definition_changes_with_the_content_and_not_with_the_folder(tmp_path: Path) -> None:
    here, there = (found(load_settings(installed(tmp_path / name), environ={})) for name in "ab")
    assert here.parameters != there.parameters
    assert here.digest == there.digest
    other = found(load_settings(installed(tmp_path / "a", "others"), environ={}))
    assert other.digest != here.digest


def test_a_variable_names_a_file_too(tmp_path: Path) -> None:
    config = installed(tmp_path)
    (tmp_path / "others.jsonl").write_text("others")
    settings = load_settings(
        config, environ={"INDEXRELAY_COMPONENTS__FIND__GOLDEN": "others.jsonl"}
    )
    assert files_in(found(settings).parameters)["golden"].read() == b"others"


def test_a_host_that_has_not_the_file_reads_the_settings_all_the_same(tmp_path: Path) -> None:
    config = installed(tmp_path)
    (tmp_path / "golden" / "queries.jsonl").unlink()
    assert found(load_settings(config, environ={})).parameters == {"golden": "golden/queries.jsonl"}


def test_a_component_that_is_declared_in_python_reads_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(installed(tmp_path), environ={})
    monkeypatch.chdir(tmp_path)
    declared = ComponentDefinition.of("vector_index", "docs", golden="golden/queries.jsonl")
    assert declared == found(settings)


def test_what_is_no_regular_file_or_too_large_is_left_as_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)
    for name in ("pipe", "folder", "large", "missing", "nul\0", "~nobody-of-that-name/x"):
        assert located({"golden": name}, tmp_path) == {"golden": name}
        with pytest.raises((OSError, ValueError)):
            ParameterFile.at(tmp_path, name)


def test_the_largest_file_is_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES)
    assert len(ParameterFile.at(tmp_path, "large").read()) == MAX_FILE_BYTES


@pytest.mark.parametrize("raw", [{"components": []}, {"components": {"find": "x"}}, {}])
def test_tables_of_a_wrong_shape_are_left_to_the_model(raw: dict[str, Any]) -> None:
    assert with_files(raw, Path("/")) == raw


def test_other_content_is_refused_and_so_is_a_file_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text("queries")
    file = ParameterFile.at(tmp_path, path.name)
    path.write_text("queriez")
    with pytest.raises(FileChangedError, match=r"queries\.jsonl has changed since the settings"):
        file.read()
    path.unlink()
    with pytest.raises(FileChangedError, match="can no longer be read"):
        file.read()


def test_a_manifest_keeps_name_and_content_and_the_page_the_name(tmp_path: Path) -> None:
    (tmp_path / "q").write_text("queries")
    parameters = {"golden": ParameterFile.at(tmp_path, "q").model_dump(mode="json"), "k": {"a": 1}}
    kept = recorded(parameters)
    assert kept["golden"].keys() == {"file", "sha256"}
    assert digested(kept) == digested(parameters)
    assert named(kept) == named(parameters) == {"golden": "q", "k": {"a": 1}}
    assert files_in(kept)["golden"].path is None


def test_a_users_own_table_under_another_key_is_not_touched() -> None:
    own = {"model": {"file": "a", "sha256": "0" * 64, "path": "/x"}, "golden": {"file": "a"}}
    assert digested(own) == recorded(own) == named(own) == own
