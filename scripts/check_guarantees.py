"""Checks that every test and every fault that the page of guarantees names exists.

A promise is a heading of the third level; below it `path::test` in backticks and faults (F7) are
its proofs. One without any, a proof that does not exist, and a fault that proves nothing are named,
and the exit code is 1.

Usage: ``python -m scripts.check_guarantees [PAGE]``; without a page, ``docs/guarantees.md``.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import ast
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from faults.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "guarantees.md"
_PROMISE = re.compile(r"^### (?P<title>.+)\n(?P<body>(?:(?!#{1,3} ).*\n?)*)", re.MULTILINE)
_PROOFS = re.compile(r"^- Proved by:(?P<proofs>(?:.*\n?)(?:^  .*\n?)*)", re.MULTILINE)
_TEST = re.compile(r"`(?P<path>[\w./-]+\.py)::(?P<name>\w+)`")
_FAULT = re.compile(r"\bF\d+\b")


@dataclass(frozen=True, kw_only=True)
class Promise:
    """One guarantee, and what is said to prove it."""

    title: str
    tests: tuple[tuple[str, str], ...]
    """Path and name of each."""
    faults: tuple[str, ...]


def promises_of(page: str) -> Iterator[Promise]:
    """The promises of a page, in their order."""
    for found in _PROMISE.finditer(page):
        proofs = "".join(each["proofs"] for each in _PROOFS.finditer(found["body"]))
        yield Promise(
            title=found["title"],
            tests=tuple((test["path"], test["name"]) for test in _TEST.finditer(proofs)),
            faults=tuple(_FAULT.findall(proofs)),
        )


def mistakes_in(page: str, *, root: Path, faults: Collection[str]) -> Iterator[str]:
    """What is wrong with a page, a sentence each.

    Args:
        root: the checkout in which the tests are looked for.
        faults: those that can be run.
    """
    promises = list(promises_of(page))
    if not promises:
        yield "the page promises nothing: a promise is a heading of the third level"
    bodies = [found["body"] for found in _PROMISE.finditer(page)]
    if len(_PROOFS.findall(page)) != sum(len(_PROOFS.findall(body)) for body in bodies):
        yield "something is proved outside of a promise, which is a heading of the third level"
    for promise in promises:
        if not (promise.tests or promise.faults):
            yield f"{promise.title}: nothing proves it"
        for path, name in promise.tests:
            if name not in _tests_in(root / path):
                yield f"{promise.title}: there is no {path}::{name}"
        for fault in promise.faults:
            if fault not in faults:
                yield f"{promise.title}: there is no fault {fault}"
    named = {fault for promise in promises for fault in promise.faults}
    for fault in sorted(set(faults) - named, key=lambda each: int(each[1:])):
        yield f"fault {fault} proves no promise"


@cache
def _tests_in(file: Path) -> frozenset[str]:
    """The names of the tests in a file; none where there is no such file."""
    if not file.is_file():
        return frozenset()
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")
    )


def main() -> int:
    """Check the page that the arguments name."""
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    text = page.read_text(encoding="utf-8")
    mistakes = list(mistakes_in(text, root=ROOT, faults=SCENARIOS))
    for mistake in mistakes:
        sys.stderr.write(f"✗ {mistake}\n")
    if not mistakes:
        promises = list(promises_of(text))
        tests = {test for promise in promises for test in promise.tests}
        faults = {fault for promise in promises for fault in promise.faults}
        sys.stdout.write(
            f"✓ {len(promises)} promises, proved by {len(tests)} tests and {len(faults)} faults\n"
        )
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
