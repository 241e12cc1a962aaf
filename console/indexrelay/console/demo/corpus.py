"""Real text that every machine has: the docstrings of the running Python's standard library.

Source files are parsed, never imported: importing them would run code, and some open windows.
Functions and classes without a docstring say nothing, and a text that occurs twice would only crowd
the answers, so both are dropped, and counted. ``--corpus DIR`` takes the text files of a folder
instead, one entry for each file.
"""

import ast
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from indexrelay.console.errors import CorpusError

_NOT_DOCUMENTATION = frozenset({"__pycache__", "dist-packages", "idle_test", "site-packages"})
_TESTS = frozenset({"test", "tests"})
_WORDS = re.compile(r"[A-Z]?[^\W_A-Z]+|[A-Z]+(?![^\W_A-Z])")
"""The words of ``an_identifier``, of ``CamelCase`` and of a file's path."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text, and where it is from."""

    id: str
    text: str
    place: str
    """For people: the module, or the file."""

    @property
    def summary(self) -> str:
        """The first paragraph."""
        return self.text.partition("\n\n")[0].strip()

    @property
    def searched(self) -> str:
        """What is indexed: the words of its name (``csv Dict Reader``), then the text."""
        return f"{' '.join(_WORDS.findall(self.id))}\n{self.text}"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What was found, and what of it was dropped."""

    origin: str
    documents: tuple[Document, ...]
    """In the order in which they were found; texts and ids are distinct."""
    found: int
    empty: int
    repeated: int
    unreadable: int
    """Files that could not be parsed or decoded."""

    def __str__(self) -> str:
        unreadable = f", {self.unreadable:,} file(s) unreadable" if self.unreadable else ""
        return (
            f"{self.origin}: {self.found:,} found, {self.empty:,} without a text and "
            f"{self.repeated:,} repeated were dropped, {len(self.documents):,} remain{unreadable}"
        )


def standard_library(root: Path | None = None) -> Corpus:
    """The docstrings of every function and class below ``root``.

    Args:
        root: a folder of Python source; ``None``: the running Python's standard library.

    Raises:
        CorpusError: there is not one.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    files = sorted(
        file
        for file in root.rglob("*.py")
        if not (_NOT_DOCUMENTATION | _TESTS).intersection(file.relative_to(root).parts)
    )
    found: list[Document] = []
    unreadable = 0
    for file in files:
        try:
            found += _docstrings(file, _module_name(file.relative_to(root)))
        except (SyntaxError, ValueError, OSError):
            unreadable += 1
    return _distinct(found, origin="the standard library's docstrings", unreadable=unreadable)


def text_folder(root: Path) -> Corpus:
    """Every text file below ``root``; files that are not UTF-8 text are counted, not read.

    Raises:
        CorpusError: it is no folder, or holds no text.
    """
    if not root.is_dir():
        raise CorpusError(f"{root} is not a folder; --corpus takes a folder of text files")
    found: list[Document] = []
    unreadable = 0
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        name = file.relative_to(root).as_posix()
        try:
            text = file.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            unreadable += 1
            continue
        if "\0" in text:
            unreadable += 1
            continue
        found.append(Document(id=name, text=text.strip(), place=name))
    return _distinct(found, origin=f"the text files in {root}", unreadable=unreadable)


def _distinct(found: Iterable[Document], *, origin: str, unreadable: int) -> Corpus:
    kept: dict[str, Document] = {}
    ids: set[str] = set()
    total = empty = 0
    for document in found:
        total += 1
        if not document.text:
            empty += 1
        elif document.text not in kept:
            # The same name can be defined twice in one module, under an if.
            unique = document.id
            number = 1
            while unique in ids:
                number += 1
                unique = f"{document.id}#{number}"
            ids.add(unique)
            kept[document.text] = Document(id=unique, text=document.text, place=document.place)
    if not kept:
        raise CorpusError(f"{origin}: no text was found")
    return Corpus(
        origin=origin,
        documents=tuple(kept.values()),
        found=total,
        empty=empty,
        repeated=total - empty - len(kept),
        unreadable=unreadable,
    )


def _docstrings(file: Path, module: str) -> list[Document]:
    """Every function and class of one file, in the order of the source, text or not."""
    with warnings.catch_warnings():
        # Old modules hold escapes that a newer Python warns of; they are not ours to mend.
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        tree = ast.parse(file.read_bytes(), filename=str(file))
    return [
        Document(id=f"{module}:{name}", text=(ast.get_docstring(node) or "").strip(), place=module)
        for name, node in _definitions(tree, "")
    ]


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, _Definition]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}{child.name}"
            yield name, child
            yield from _definitions(child, f"{name}.")
        else:
            yield from _definitions(child, prefix)


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
