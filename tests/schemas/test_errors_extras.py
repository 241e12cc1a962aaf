"""What is optional and not installed is named with the extra that brings it, wherever it is met."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from indexrelay.console.errors import explain
from indexrelay.schemas.errors import EXTRAS, MissingExtraError, missing_extra, require

ROOT = Path(__file__).parents[2]
BY_NAME = ("require", "find_spec", "import_module")
"""Functions that take a module's name as text."""


def sources() -> Iterator[Path]:
    for folder in sorted(ROOT.glob("*/indexrelay")):
        yield from sorted(folder.rglob("*.py"))


def names_of(node: ast.AST) -> list[str]:
    """The modules that one node of a program imports, or asks for by name."""
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module]
        case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(module))]):
            return [module] if name in BY_NAME else []
        case ast.Call(func=ast.Attribute(attr=name), args=[ast.Constant(value=str(module))]):
            return [module] if name in BY_NAME else []
    return []


def imported(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The first name of each module that is needed to run, and where it stands."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        return
    for name in names_of(tree):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in {"", "indexrelay"}:
            yield top, tree
    for child in ast.iter_child_nodes(tree):
        yield from imported(child)


def guarded(tree: ast.Module) -> set[str]:
    """The modules whose absence is made a `MissingExtraError` where they are imported."""
    found = set()
    for block in ast.walk(tree):
        if isinstance(block, ast.Call) and ast.unparse(block.func) == "see_installed":
            found |= {ast.literal_eval(each) for each in block.args}
        if isinstance(block, ast.Try) and any(
            "missing_extra(" in ast.unparse(handler) for handler in block.handlers
        ):
            found |= {name for part in block.body for name, _ in imported(part)}
    return found


# Both read what every installed distribution says of itself, which takes a while.
required = cache(metadata.requires)
homes_of_modules = cache(metadata.packages_distributions)


@cache
def distributions_of(requirement: Requirement) -> set[str]:
    """What installing it brings, by the names that indexes know."""
    found: set[str] = set()
    pending = [requirement]
    while pending:
        each = pending.pop()
        name = canonicalize_name(each.name)
        seen = {f"{name}[{extra}]" for extra in each.extras} | {name}
        if seen <= found:
            continue
        found |= seen
        extras = each.extras or {""}
        for line in required(name) or ():
            inner = Requirement(line)
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in extras):
                pending.append(inner)
    return found


def test_every_optional_import_of_the_package_names_its_extra_when_it_is_missing() -> None:
    everybodys = distributions_of(Requirement("indexrelay"))
    homes = homes_of_modules()
    seen: set[str] = set()
    unguarded = []
    for file in sources():
        tree = ast.parse(file.read_text())
        own = guarded(tree) | guarded(ast.parse((file.parent / "__init__.py").read_text()))
        for module, node in imported(tree):
            if {canonicalize_name(home) for home in homes.get(module, ())} & everybodys:
                continue
            seen.add(module)
            where = f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} imports {module}"
            assert module in EXTRAS, f"{where}, which neither everybody has nor EXTRAS names"
            by_name = isinstance(node, ast.Call)
            # What the command line meets is explained by it, whatever it was doing.
            if not by_name and module not in own and "console" not in file.parts:
                unguarded.append(where)
    assert unguarded == []
    assert seen == set(EXTRAS)


@pytest.mark.parametrize("module", EXTRAS)
def test_the_extra_that_is_named_brings_the_module(module: str) -> None:
    brought = distributions_of(Requirement(f"indexrelay[{EXTRAS[module]}]"))
    homes = {canonicalize_name(home) for home in homes_of_modules()[module]}
    assert homes & brought
    assert not homes & distributions_of(Requirement("indexrelay"))


@pytest.mark.parametrize("module", EXTRAS)
def test_a_missing_module_is_an_error_that_names_what_to_install(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    command = f"pip install 'indexrelay[{EXTRAS[module]}]'"
    for name in (module, f"{module}.inside"):
        with pytest.raises(MissingExtraError, match=re.escape(command)):
            require(name)
        explained = explain(ModuleNotFoundError(f"No module named {name!r}", name=name))
        assert explained is not None
        assert command in explained.sentence


def test_another_module_that_is_missing_is_not_taken_for_an_extra() -> None:
    for error in (
        ModuleNotFoundError("No module named 'mine'", name="mine"),
        ImportError("cannot import name 'x' from 'flask'", name="flask"),
    ):
        with pytest.raises(ImportError) as raised:
            missing_extra(error)
        assert raised.value is error
    with pytest.raises(ModuleNotFoundError, match=r"sklearn\.nothing"):
        require("sklearn.nothing")


CASES = {
    "flask": "import indexrelay.reloaders.flask",
    "fastapi": "import indexrelay.reloaders.fastapi",
    "uvicorn": "import indexrelay.service.app",
    "h11": "import indexrelay.service.connections",
    "pytest": "import indexrelay.testing.plugin",
    "fakeredis": "from indexrelay.testing import Pipeline",
    "psycopg": "from indexrelay.storage.catalog import Catalog; Catalog.open('postgresql://h/d')",
}
"""By the module that is missing: the doors that a program has to what needs it."""


@pytest.mark.parametrize("module", CASES)
def test_a_role_without_its_module_names_what_to_install(module: str) -> None:
    blocked = f"import sys; sys.modules[{module!r}] = None\n{CASES[module]}"
    ended = subprocess.run(
        [sys.executable, "-c", blocked], capture_output=True, text=True, timeout=60, check=False
    )
    last = ended.stderr.strip().splitlines()[-1]
    assert "MissingExtraError" in last, ended.stderr
    assert f"pip install 'indexrelay[{EXTRAS[module]}]'" in last
