"""Compares what was printed with what was to be printed, and shows the difference.

``...`` in the expected text stands for anything: within a line for some characters, on a line of
its own for any number of lines. Trailing white space does not count.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import difflib
import re


def difference(expected: str, printed: str) -> str | None:
    """A unified diff, or ``None`` when ``printed`` is what was expected."""
    wanted, got = _lines(expected), _lines(printed)
    if re.fullmatch("".join(map(_pattern, wanted)), "".join(f"{line}\n" for line in got)):
        return None
    lines = difflib.unified_diff(wanted, got, fromfile="expected", tofile="printed", lineterm="")
    return "\n".join(lines)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def _pattern(line: str) -> str:
    """A regular expression for one expected line and its end."""
    if line.strip() == "...":
        return r"(?:[^\n]*\n)*?"
    return r"[^\n]*?".join(re.escape(part) for part in line.split("...")) + r"\n"
