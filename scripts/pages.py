"""The command line of the programs that write a page of docs/ from what it describes."""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def write_or_check(program: str, page: Callable[[], str], *, described: str, of: str) -> int:
    """Write the page, or compare it with ``--check``; 1 when the file is not what it should be.

    Args:
        program: the module under ``scripts``.
        page: makes the text.
        described: what the program does, for ``--help``.
        of: what the page says: the docstrings, the models.
    """
    prog = f"python -m scripts.{program}"
    parser = argparse.ArgumentParser(prog=prog, description=described)
    parser.add_argument("page", type=Path, metavar="PAGE", help="the file below docs/")
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    given = parser.parse_args()
    text = page()
    if not given.check:
        given.page.write_text(text, encoding="utf-8")
    elif not given.page.is_file() or given.page.read_text(encoding="utf-8") != text:
        sys.stderr.write(f"{given.page} is not what {of}; write it again: make docs\n")
        return 1
    return 0
