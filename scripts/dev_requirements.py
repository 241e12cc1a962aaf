"""Prints the development requirements, one to a line.

They stand in ``[dependency-groups]`` of ``pyproject.toml`` (PEP 735). The pip that comes with
Python 3.11 cannot read such a group, and upgrading pip first would cost every fresh checkout a
download; a few lines of standard library cost nothing.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"

if __name__ == "__main__":
    group = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["dependency-groups"]["dev"]
    sys.stdout.write("".join(f"{requirement}\n" for requirement in group))
