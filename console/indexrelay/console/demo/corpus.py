"""The demo's data: texts that every machine has, and the plan of batches.

Texts are the docstrings of the running Python's standard library (parsed, never imported) or the
text files of a folder. A document first comes in with its summary; a later batch changes some to
their full text and deletes others. The plan is drawn with a fixed seed.
"""

import ast
import dataclasses
import random
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexrelay.console.errors import CorpusError

_NOT_DOCUMENTATION: Final = frozenset(
    {"__pycache__", "dist-packages", "idle_test", "site-packages"}
)
_TESTS: Final = frozenset({"test", "tests"})
_WORDS: Final = re.compile(r"[A-Z]?[^\W_A-Z]+|[A-Z]+(?![^\W_A-Z])")
"""The words of ``an_identifier``, of ``CamelCase`` and of a file's path."""
_PLAN_SEED: Final = 20
_CHANGED: Final = 0.10
"""Share of a batch's size that changes entries of earlier batches."""
_DELETED: Final = 0.05
"""Share of a batch's size that deletes entries of earlier batches."""
_DOCUMENTS_PER_BATCH: Final = 4
"""With fewer the shares above would be rounded to zero."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """One text, and where it is from."""

    id: str
    text: str
    place: str
    """For people: the module, or the file."""
    kind: str = "text"
    """``function`` or ``class``, of a docstring; else ``text``."""

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


@dataclass(frozen=True, kw_only=True)
class PlannedBatch:
    """One batch of the job."""

    batch_id: str
    upserts: tuple[Document, ...]
    """New ones with their summary, changed ones with their full text."""
    changed: int
    """How many of the upserts replace an earlier entry."""
    deletes: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many changes it makes."""
        return len(self.upserts) + len(self.deletes)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All batches, and what must be there after the last one."""

    batches: tuple[PlannedBatch, ...]
    live: frozenset[str]
    """Ids of the entries that remain."""


def plan(documents: Sequence[Document], *, batches: int) -> Plan:
    """Spread ``documents`` over ``batches``; every batch but the first also changes and deletes.

    Raises:
        CorpusError: there are too few documents for that many batches.
    """
    if len(documents) < batches * _DOCUMENTS_PER_BATCH:
        raise CorpusError(
            f"{len(documents)} documents are too few for {batches} batches; "
            f"it takes at least {batches * _DOCUMENTS_PER_BATCH}"
        )
    draw = random.Random(_PLAN_SEED)  # noqa: S311 - a plan that can be repeated, not a secret
    shuffled = draw.sample(documents, len(documents))
    summarised: dict[str, Document] = {}
    live: set[str] = set()
    planned = []
    for number in range(batches):
        new = shuffled[number * len(shuffled) // batches : (number + 1) * len(shuffled) // batches]
        changed = _take(draw, summarised, share=_CHANGED, size=len(new))
        deleted = _take(draw, summarised, share=_DELETED, size=len(new))
        live -= {document.id for document in deleted}
        live |= {document.id for document in new}
        summarised |= {document.id: document for document in new}
        planned.append(
            PlannedBatch(
                batch_id=f"demo-{number + 1}",
                upserts=(*(_summarised(document) for document in new), *changed),
                changed=len(changed),
                deletes=tuple(document.id for document in deleted),
            )
        )
    return Plan(batches=tuple(planned), live=frozenset(live))


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
            kept[document.text] = dataclasses.replace(document, id=unique)
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
        # Old modules have escapes that a newer Python warns of.
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        tree = ast.parse(file.read_bytes(), filename=str(file))
    return [
        Document(
            id=f"{module}:{name}",
            text=(ast.get_docstring(node) or "").strip(),
            place=module,
            kind="class" if isinstance(node, ast.ClassDef) else "function",
        )
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


def _take(
    draw: random.Random, pool: dict[str, Document], *, share: float, size: int
) -> list[Document]:
    """Draw earlier documents, and take them out of the pool: each is touched once more at most."""
    count = min(len(pool), max(1, round(share * size)))
    taken = draw.sample(sorted(pool), count)
    return [pool.pop(name) for name in taken]


def _summarised(document: Document) -> Document:
    return dataclasses.replace(document, text=document.summary)
