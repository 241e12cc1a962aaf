"""Two of ``indexrelay up`` on one data folder."""

import os
from pathlib import Path

import pytest

from indexrelay.console.commands.up import sole_owner
from indexrelay.console.errors import CommandError
from tests.console.conftest import CONFIG, Run


def test_a_second_owner_is_refused_with_the_process_id_of_the_first(tmp_path: Path) -> None:
    with (
        sole_owner(tmp_path / "data"),
        pytest.raises(CommandError, match=f"as process {os.getpid()};"),
        sole_owner(tmp_path / "data"),
    ):
        pytest.fail("it was let in")
    with sole_owner(tmp_path / "data"):
        pass


def test_a_second_up_is_refused_before_it_starts_anything(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "indexrelay.toml"
    config.write_text(CONFIG)
    with sole_owner(tmp_path / "indexrelay-data"):
        said = run("up", "--config", str(config))
    assert said.code == 1
    assert "runs on" in said.err
    assert [each.name for each in (tmp_path / "indexrelay-data").iterdir()] == ["up.pid"]
