"""Writes the page of the public names: each front door's names, one line each from its docstring.

A front door is a module that users import from; `DOORS` lists them. Its names are its ``__all__``,
or what it defines without an underscore.

Usage: ``python -m scripts.api_page PAGE [--check]``.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from scripts.pages import write_or_check

DOORS: Final[Mapping[str, str]] = {
    "indexrelay.producers": "An analysis job: commit entries, announce them, wait until they are "
    "served.",
    "indexrelay.reloaders": "A program that serves: the components of the newest release, in its "
    "own memory.",
    "indexrelay.reloaders.fastapi": "The same inside a FastAPI application.",
    "indexrelay.reloaders.flask": "The same inside a Flask application.",
    "indexrelay.service": "A reader as an HTTP service, and the client that asks it.",
    "indexrelay.service.client": "What a client is given, and what may go wrong.",
    "indexrelay.rebuilder": "A program that builds; most run `indexrelay rebuilder` instead.",
    "indexrelay.operations": "What is done by the clock; most run `indexrelay operator` instead.",
    "indexrelay.admin": "People looking; most run `indexrelay admin` instead.",
    "indexrelay.components": "A kind of one's own: what it is given, what it returns, what it "
    "serves ([kinds.md](kinds.md)).",
    "indexrelay.components.layered": "The toolbox of kinds that build incrementally.",
    "indexrelay.components.vector_index": 'What `kind = "vector_index"` builds and serves.',
    "indexrelay.components.search": 'What `kind = "search"` builds and serves.',
    "indexrelay.components.text_index": 'What `kind = "text_index"` builds and serves.',
    "indexrelay.components.projection": 'What `kind = "projection"` builds and serves.',
    "indexrelay.components.json_cache": 'What `kind = "json_cache"` builds and serves.',
    "indexrelay.components.embedding_cache": 'What `kind = "embedding_cache"` builds and serves.',
    "indexrelay.schemas": "Settings, logs, errors, and what messages say.",
    "indexrelay.storage": "The catalog and the artifacts, for who puts the parts together by hand.",
    "indexrelay.streams": "Redis, for who puts the parts together by hand.",
    "indexrelay.testing": "Tests of one's own: a pipeline on fakeredis with injected time.",
}
"""Every front door, with who needs it."""
_INTRODUCTION: Final = """\
# Public names

What a program imports comes from one of the front doors below; this page is written by `make docs`
from their docstrings, do not edit. These names, the keys of `indexrelay.toml`
([settings.md](settings.md)), the commands of `indexrelay` with their `--json` documents, and the
messages and stored documents ([schemas/](schemas/)) change only with a line in the changelog.

Everything else is private, and is marked so by where it lies: what is imported from a module
*below* a front door (`indexrelay.producers.batch`) or from a portion without one
(`indexrelay.health`, `indexrelay.console`) may be moved or renamed at any time. A name with an
underscore is private to its module. Settings and entry points name modules as text
(`indexrelay.testing.plugin`, `indexrelay.components.json_cache.map_points:map_points`); such texts
stay valid.
"""


def page() -> str:
    """The whole page; the same docstrings give the same text."""
    return "\n".join([_INTRODUCTION, *(_section(door, about) for door, about in DOORS.items())])


def public_names(door: str) -> list[str]:
    """The names of a front door, in the order of the alphabet, whatever their case."""
    module = import_module(door)
    names = getattr(module, "__all__", None)
    if names is None:
        names = [name for name in vars(module) if _is_defined_in(module, name)]
    return sorted(names, key=str.lower)


def summary(door: str, name: str) -> str:
    """The first sentence of a name's docstring; empty: it has none."""
    value = getattr(import_module(door), name)
    if inspect.isclass(value) or inspect.isroutine(value):
        text = inspect.getdoc(value) or ""
    else:
        text = _documented(door, name)
    line = " ".join(text.partition("\n\n")[0].split())
    return re.sub(r"``(.+?)``", r"`\1`", line).replace("|", "\\|")


def _section(door: str, about: str) -> str:
    rows = [f"| `{name}` | {summary(door, name)} |" for name in public_names(door)]
    return "\n".join([f"## {door}", about, "", "| name | what it is |", "|---|---|", *rows, ""])


def _is_defined_in(module: ModuleType, name: str) -> bool:
    return not name.startswith("_") and (
        getattr(getattr(module, name), "__module__", None) == module.__name__
    )


@cache
def _documented(module: str, name: str) -> str:
    """The text below an assignment, looked for where the name was imported from."""
    for statement, following in _statements(module):
        if isinstance(statement, ast.ImportFrom) and statement.module:
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    return _documented(statement.module, alias.name)
        elif name in _targets(statement) and isinstance(following, ast.Expr):
            text: Any = getattr(following.value, "value", None)
            return inspect.cleandoc(text) if isinstance(text, str) else ""
    return ""


def _statements(module: str) -> Iterator[tuple[ast.stmt, ast.stmt | None]]:
    """Each statement of a module, also below an ``if``, and the one that follows it."""
    body = ast.parse(inspect.getsource(import_module(module))).body
    body += [each for statement in body if isinstance(statement, ast.If) for each in statement.body]
    yield from zip(body, [*body[1:], None], strict=True)


def _targets(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.AnnAssign):
        return {ast.unparse(statement.target)}
    return (
        {ast.unparse(each) for each in statement.targets}
        if isinstance(statement, ast.Assign)
        else set()
    )


def main() -> int:
    """Write the page, or compare it."""
    return write_or_check("api_page", page, described=__doc__ or "", of="the docstrings say")


if __name__ == "__main__":
    sys.exit(main())
