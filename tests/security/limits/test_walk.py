"""Every limit that docs/security.md names is where it says, and does there what it says."""

import importlib
import pkgutil
from typing import Any

import pytest

import tests.security.limits as here
from indexrelay.schemas.settings import Settings
from tests.security.limits.table import EXERCISES, Row, rows

for module in pkgutil.iter_modules(here.__path__, f"{here.__name__}."):
    if not module.name.rpartition(".")[2].startswith("test_"):
        importlib.import_module(module.name)

ROWS = rows()


def test_every_row_has_an_exercise_and_every_exercise_a_row() -> None:
    assert len(ROWS) >= 5
    named = [row.what for row in ROWS]
    assert len(set(named)) == len(named)
    assert set(named) == set(EXERCISES)


@pytest.mark.parametrize("row", [row for row in ROWS if row.setting], ids=lambda row: row.setting)
def test_a_limit_with_a_setting_is_the_default_of_that_setting(row: Row) -> None:
    value: Any = Settings.model_validate(
        {"collections": {"NAME".lower(): {"dimension": 2}}, "components": {}}
    )
    for key in row.setting.replace("NAME", "name").split("."):
        value = value[key] if isinstance(value, dict) else getattr(value, key)
    assert value == row.number


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_a_limit_does_what_the_page_says(row: Row, request: pytest.FixtureRequest) -> None:
    EXERCISES[row.what](row, request)
