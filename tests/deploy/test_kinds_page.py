"""docs/kinds.md shows the files of examples/kinds, and what it says about them is true."""

import ast
import re
from pathlib import Path

import pytest

import indexrelay.components
from examples.kinds import test_signs
from indexrelay.components.layered import __all__ as toolbox
from indexrelay.testing.plugin import MakePipeline

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/kinds.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"<!-- (examples/kinds/\w+\.py) -->\n```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_shows_both_kinds_and_a_test() -> None:
    assert [Path(name).name for name, _ in SHOWN] == ["middle.py", "signs.py", "test_signs.py"]


@pytest.mark.parametrize(("name", "shown"), SHOWN, ids=[name for name, _ in SHOWN])
def test_the_page_shows_a_file_as_it_is(name: str, shown: str) -> None:
    assert shown == (ROOT / name).read_text(encoding="utf-8")


def code_lines(name: str) -> int:
    """Lines of classes and functions, without imports, blank lines and docstrings."""
    tree = ast.parse((ROOT / "examples/kinds" / name).read_text(encoding="utf-8"))
    body = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return sum(len(ast.unparse(node).splitlines()) for node in body)


def test_the_smallest_kind_takes_twenty_lines() -> None:
    assert code_lines("middle.py") <= 20


def test_an_incremental_kind_takes_less_than_120_lines() -> None:
    file = ROOT / "examples/kinds/signs.py"
    assert len(file.read_text(encoding="utf-8").splitlines()) < 120


def test_the_tests_that_the_page_shows_pass(
    indexrelay_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples/kinds"))
    test_signs.test_a_small_batch_is_built_incrementally_and_found(indexrelay_pipeline)


def test_every_name_that_the_page_uses_is_at_the_front_door() -> None:
    doors = {*indexrelay.components.__all__, *toolbox}
    named = set(re.findall(r"`([A-Z]\w+)(?:\(|`)", PAGE))
    assert named - doors <= {"None"}
