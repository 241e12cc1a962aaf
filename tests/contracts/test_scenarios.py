"""The page that lists the scenarios is true, and complete."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")

ORIGINALS: dict[str, frozenset[str]] = {
    original: frozenset(listed["scenarios"])
    for original, listed in tomllib.loads(
        (FOLDER / "originals.toml").read_text(encoding="utf-8")
    ).items()
}
"""Every scenario of the originals, by their names there."""

every_original = pytest.mark.parametrize("original", ORIGINALS)


def _section(original: str) -> str:
    found = re.search(rf"^## {original}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"the page says nothing of {original}"
    return found[1]


def _held(original: str) -> list[tuple[str, str]]:
    """Each row of the page's table: a scenario, and ``file::test``."""
    return re.findall(r"^\| (\w+) \| `([\w.]+::\w+)` \|$", _section(original), re.MULTILINE)


def _left_out(original: str) -> list[str]:
    rows = re.findall(
        r"^\| (\w+(?:, \w+)*) \| (?!`test_)(\S.*) \|$", _section(original), re.MULTILINE
    )
    return [name for names, why in rows if why != "test" for name in names.split(", ")]


def _docstrings() -> dict[str, str]:
    """The docstring of each test of a scenario, by ``file::test``."""
    found = {}
    for file in sorted(FOLDER.glob("test_*.py")):
        if file == Path(__file__):
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[f"{file.name}::{node.name}"] = ast.get_docstring(node) or ""
    return found


@every_original
def test_each_test_on_the_page_exists_and_gives_its_scenarios_original_name(original: str) -> None:
    docstrings = _docstrings()
    assert _held(original)
    wrong = [
        (scenario, test)
        for scenario, test in _held(original)
        if not re.match(rf"{original}: .*\b{scenario}\b", docstrings.get(test, ""))
    ]
    assert wrong == []


def test_each_test_is_on_the_page() -> None:
    listed = {test for original in ORIGINALS for _, test in _held(original)}
    assert set(_docstrings()) == listed


@every_original
def test_each_scenario_of_the_originals_is_held_or_left_out_with_a_reason(original: str) -> None:
    held = {scenario for scenario, _ in _held(original)}
    left_out = _left_out(original)
    assert len(left_out) == len(set(left_out))
    assert held.isdisjoint(left_out)
    assert held | set(left_out) == ORIGINALS[original]


def test_the_files_that_reasons_point_to_exist() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []
