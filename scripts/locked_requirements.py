"""Prints the pins, with their digests, of what some extras and groups need, and of nothing else.

For ``pip install --require-hashes --requirement …``. Everything that was ever resolved stands in
``constraints.txt``, each pin with the names that it is there for (``# via``); from the chosen
extras and groups of ``pyproject.toml`` one follows these. Standard library only: it runs before
anything is installed.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_OURS = "indexrelay"


@dataclass(frozen=True)
class Pin:
    """One distribution in ``constraints.txt``."""

    name: str
    version: str
    text: str
    """Its lines, with the digests."""
    via: frozenset[str]
    """Who asks for it."""

    @property
    def digests(self) -> list[str]:
        """The sha256 of each file that may be installed for it."""
        return re.findall(r"--hash=sha256:([0-9a-f]{64})", self.text)


def normalized(name: str) -> str:
    """As PEP 503 compares names; an extra in brackets is left out."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", name)[0]).lower()


def pins(constraints: str) -> dict[str, Pin]:
    """Every pin, by its normalized name."""
    found: dict[str, Pin] = {}
    for block in re.split(r"^(?=[A-Za-z0-9])", constraints, flags=re.MULTILINE):
        start = re.match(r"([A-Za-z0-9._-]+)==([^ ;\\\n]+)", block)
        if start is None:
            continue
        text, _, via = block.partition("    # via")
        asked_by = frozenset(normalized(each) for each in re.findall(r"[A-Za-z0-9][\w.-]*", via))
        name = normalized(start[1])
        found[name] = Pin(name=name, version=start[2], text=text, via=asked_by)
    return found


def roots(
    project: Mapping[str, Any],
    *,
    extras: Iterable[str] = (),
    groups: Iterable[str] = (),
    build: bool = False,
    itself: bool = True,
) -> set[str]:
    """The names that the chosen extras and groups ask for themselves, and the project ``itself``.

    Raises:
        KeyError: there is no such extra or group.
    """
    asked = list(project["project"]["dependencies"]) if itself else []
    for extra in extras:
        asked += _of_extra(project["project"]["optional-dependencies"], extra)
    for group in groups:
        asked += project["dependency-groups"][group]
    if build:
        asked += project["build-system"]["requires"]
    return {normalized(each) for each in asked}


def needed(chosen: Iterable[str], known: Mapping[str, Pin]) -> dict[str, Pin]:
    """These pins and all that they bring, in the order of names.

    Raises:
        KeyError: one of them is not pinned.
    """
    found: set[str] = set()
    pending = {name: known[name] for name in chosen}
    while pending:
        found |= pending.keys()
        pending = {
            name: pin
            for name, pin in known.items()
            if name not in found and not pin.via.isdisjoint(found)
        }
    return {name: known[name] for name in sorted(found)}


def _of_extra(extras: Mapping[str, list[str]], extra: str) -> Iterator[str]:
    for asked in extras[extra]:
        if normalized(asked) != _OURS:
            yield asked
            continue
        named = re.search(r"\[([^\]]+)\]", asked)
        for other in named[1].split(",") if named else ():
            yield from _of_extra(extras, other.strip())


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--extra", action="append", default=[], help="an extra of the project")
    parser.add_argument("--group", action="append", default=[], help="a dependency group")
    parser.add_argument(
        "--no-project", action="store_true", help="leave out what the project itself needs"
    )
    parser.add_argument("--build", action="store_true", help="what builds the project, too")
    parser.add_argument("--folder", type=Path, default=ROOT, help="where pyproject.toml is")
    chosen = parser.parse_args()
    project = tomllib.loads((chosen.folder / "pyproject.toml").read_text(encoding="utf-8"))
    known = pins((chosen.folder / "constraints.txt").read_text(encoding="utf-8"))
    asked = roots(
        project,
        extras=chosen.extra,
        groups=chosen.group,
        build=chosen.build,
        itself=not chosen.no_project,
    )
    sys.stdout.write("".join(pin.text for pin in needed(asked, known).values()))


if __name__ == "__main__":
    main()
