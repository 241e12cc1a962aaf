"""Where each value of the settings comes from."""

from pathlib import Path

import pytest

from indexrelay.schemas.errors import Mistake, SettingsError
from indexrelay.schemas.origins import DEFAULT, Origin, Origins, lines_of
from indexrelay.schemas.settings_file import load_settings, origins_of

FILE = '''\
namespace = "x"  # [not.a.table]

data_dir = """
[redis]
url = 1
"""
[redis]
timeout_seconds = 1
[components.forecast]
kind = "vector_index"
matrix = { horizon = [6,
  12], index = ["Flat"] }
from = "tracks"
[collections."tracks"]
filterable."album.year" = "number"
'''


def test_each_key_has_the_line_on_which_its_statement_begins() -> None:
    lines = lines_of(FILE)
    assert lines["namespace",] == 1
    assert lines["data_dir",] == 3
    assert lines["redis",] == 7
    assert ("redis", "url") not in lines
    assert lines["components", "forecast", "matrix", "index"] == 11
    assert lines["components", "forecast", "from"] == 13
    assert lines["collections", "tracks", "filterable", "album.year"] == 15


def test_a_file_that_is_no_toml_has_the_lines_of_what_can_be_read() -> None:
    assert lines_of("a = 1\nb = [\nc = 2\n") == {("a",): 1}


def test_a_component_of_a_matrix_comes_from_its_table() -> None:
    origins = Origins(lines=lines_of(FILE))
    made = ("components", "forecast_6h_flat")
    assert origins.of((*made, "from")).line == 13
    assert origins.of((*made, "index")).line == 11
    assert origins.of((*made, "priority")) == DEFAULT
    assert origins.of(("components", "forecasts_x", "from")) == DEFAULT


def test_a_variable_wins_over_the_line(tmp_path: Path) -> None:
    file = tmp_path / "indexrelay.toml"
    file.write_text("[log]\nlevel = 'debug'\nformat = 'json'\n")
    environ = {"INDEXRELAY_LOG": '{"level": "info"}', "INDEXRELAY_REDIS__URL": ""}
    origins = origins_of(file, environ=environ)
    assert origins.of(("log", "level")) == Origin(variable="INDEXRELAY_LOG")
    assert origins.of(("log", "format")) == Origin(line=3)
    assert origins.of(("redis", "url")) == DEFAULT


@pytest.mark.parametrize(
    ("text", "environ", "said"),
    [
        ("[rebuilder]\nworkers = 0\n", {}, "line 2: rebuilder.workers = 0"),
        ("[rebuilder]\n\nwokers = 1\n", {}, "line 3: rebuilder.wokers"),
        ("\n[collections.tracks]\n", {}, "line 2: collections.tracks.dimension = None"),
        ("a = 1\nb =\n", {}, "line 2: config = "),
        ("", {"INDEXRELAY_LOG__LEVEL": "x"}, "INDEXRELAY_LOG__LEVEL: log.level = 'x'"),
        ("", {"INDEXRELAY_LGO__LEVEL": "x"}, "  INDEXRELAY_LGO__LEVEL = "),
    ],
)
def test_a_mistake_names_the_line_or_the_variable_that_it_is_in(
    tmp_path: Path, text: str, environ: dict[str, str], said: str
) -> None:
    file = tmp_path / "indexrelay.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as raised:
        load_settings(file, environ=environ)
    assert said in str(raised.value)
    assert len(raised.value.mistakes) == 1


def test_a_mistake_that_is_in_no_line_keeps_its_sentence() -> None:
    mistake = Mistake(key="collections", value={}, right="nothing is declared")
    assert list(Origins().located([mistake])) == [mistake]
    assert str(mistake) == "collections = {}: nothing is declared"
