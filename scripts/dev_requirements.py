"""Prints the development requirements, one to a line.

They stand in ``[dependency-groups]`` of ``pyproject.toml`` (PEP 735). The pip that comes with
Python 3.11 cannot read such a group, and upgrading pip first would cost every fresh checkout a
download; a few lines of standard library cost nothing.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import argparse
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def main() -> None:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--group", action="append", help="a dependency group; otherwise: dev")
    parser.add_argument("--build", action="store_true", help="what builds the project, too")
    chosen = parser.parse_args()
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    requirements = [
        requirement
        for group in chosen.group or ["dev"]
        for requirement in project["dependency-groups"][group]
    ]
    if chosen.build:
        requirements += project["build-system"]["requires"]
    sys.stdout.write("".join(f"{requirement}\n" for requirement in requirements))


if __name__ == "__main__":
    main()
