"""The page of public names is what the docstrings say, and whoever uses us needs no other names."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from scripts.api_page import DOORS, page, public_names, summary
from tests.test_house import PORTIONS, ROOT, tracked

PAGE = ROOT / "docs" / "api.md"
IMPORT = re.compile(r"^\s*from (indexrelay[\w.]*) import", re.MULTILINE)


def imported(file: Path) -> Iterator[str]:
    """The modules of ours that a program, or the programs in a page, import from."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        yield from IMPORT.findall(text)
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("indexrelay"):
            yield str(node.module)


def test_the_page_is_what_the_docstrings_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "make docs"


@pytest.mark.parametrize("door", DOORS)
def test_every_public_name_has_a_line(door: str) -> None:
    names = public_names(door)
    assert names
    assert [name for name in names if not summary(door, name)] == []


def test_every_portion_that_hands_out_names_is_a_front_door() -> None:
    handing_out = {
        f"indexrelay.{portion}"
        for portion in PORTIONS
        if hasattr(import_module(f"indexrelay.{portion}"), "__all__")
    }
    assert handing_out <= set(DOORS)


def test_what_users_read_imports_from_the_front_doors_only() -> None:
    readable = tracked("README.md", "docs/*.md", "examples/*.py", "examples/**/*.py")
    below = {
        f"{file.relative_to(ROOT)}: {module}"
        for file in readable
        for module in imported(file)
        if module not in DOORS
    }
    assert below == set()
