"""Writes the page of the licences of all dependencies, and refuses those that we do not want.

Usage: ``python -m scripts.licences_page PAGE [--check]``.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import sys
from collections.abc import Iterable, Iterator
from typing import Final

from scripts.distributions import DEVELOPMENT, EXTRAS, ITSELF, Installed, installed
from scripts.locked_requirements import ROOT
from scripts.pages import write_or_check
from scripts.vendor import FOLDER, libraries

ALLOWED: Final = frozenset(
    {
        "0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CNRI-Python",
        "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Unlicense", "ZPL-2.1",
        "Zlib",
    }
)  # fmt: skip
"""They ask for a notice at most, and MPL for changes to its own files."""
ALLOWED_IN: Final = {"LGPL-3.0-only": "postgresql"}
"""What only who asks for that extra gets."""
_PAGE: Final = """\
# Licences

indexrelay is under the [MIT licence](../LICENSE). This is what it brings, as the metadata of each
distribution says it; written by `make docs`, do not edit. `BSD` stands where the metadata do not
say how many clauses. CI fails on any licence but these:

{allowed}

{exceptions}.

## At run time
Each under the first extra that brings it; `indexrelay` is what every installation has.

{run_time}

## In the browser
What the admin page brings, pinned in its `vendor.json`; each licence lies beside its library.

{browser}

## For development
Tests, checks, benchmarks and packaging; none of it is in an installation.

{development}
"""


def refused(found: Iterable[Installed]) -> Iterator[str]:
    """A sentence for each distribution whose licence is not allowed where it comes from."""
    for each in found:
        if not each.licence:
            yield f"{each.name} says nothing of its licence that is understood"
        elif not _is_allowed(each.licence, each.comes_with):
            yield f"{each.name} is under {each.licence}, and comes with {each.comes_with}"


def refused_in_the_page() -> Iterator[str]:
    """A sentence for each library of the admin page whose licence is not allowed."""
    for each in libraries(ROOT / FOLDER):
        if not _is_allowed(each["licence"], "admin"):
            yield f"{each['name']} is under {each['licence']}, and lies in the admin page"


def page(found: Iterable[Installed]) -> str:
    """The page."""
    every = list(found)
    run_time = [each for each in every if each.comes_with != DEVELOPMENT]
    order = {extra: place for place, extra in enumerate((ITSELF, *EXTRAS))}
    run_time.sort(key=lambda each: (order[each.comes_with], each.pin.name))
    return _PAGE.format(
        allowed="\n".join(f"- {licence}" for licence in sorted(ALLOWED)),
        exceptions="; ".join(
            f"{licence} may come with the extra `{extra}` alone"
            for licence, extra in ALLOWED_IN.items()
        ),
        run_time=_table(
            ("distribution", "licence", "comes with"),
            ((each.name, each.licence, f"`{each.comes_with}`") for each in run_time),
        ),
        browser=_table(
            ("library", "version", "licence"),
            ((each["name"], each["version"], each["licence"]) for each in libraries(ROOT / FOLDER)),
        ),
        development=_table(
            ("distribution", "licence"),
            ((each.name, each.licence) for each in every if each.comes_with == DEVELOPMENT),
        ),
    )


def _is_allowed(expression: str, comes_with: str) -> bool:
    def one(licence: str) -> bool:
        return licence in ALLOWED or ALLOWED_IN.get(licence) == comes_with

    return any(all(map(one, way.split(" AND "))) for way in expression.split(" OR "))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Write the page, or compare it; 1 when it differs, or a licence is refused."""
    found = installed()
    problems = [*refused(found), *refused_in_the_page()]
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    written = write_or_check(
        "licences_page", lambda: page(found), described=__doc__ or "", of="is installed"
    )
    return 1 if problems else written


if __name__ == "__main__":
    sys.exit(main())
