"""Compares what was printed with what was to be printed, and shows the difference.

``...`` in the expected text stands for anything: within a line for some characters, on a line of
its own for any number of lines. Trailing white space does not count.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import difflib
import re


def difference(expected: str, printed: str) -> str | None:
    """A unified diff, or ``None`` when ``printed`` is what was expected."""
    if re.fullmatch(_pattern(expected), _trimmed(printed), re.DOTALL):
        return None
    lines = difflib.unified_diff(
        _trimmed(expected).splitlines(),
        _trimmed(printed).splitlines(),
        fromfile="expected",
        tofile="printed",
        lineterm="",
    )
    return "\n".join(lines)


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def _pattern(expected: str) -> str:
    """A regular expression; a line of dots also stands for no line at all."""
    pattern = ""
    for line in _trimmed(expected).splitlines():
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += r"[^\n]*?".join(re.escape(part) for part in line.split("...")) + "\n"
    # The last line has no end; a closing line of dots may have swallowed everything before it.
    return pattern.removesuffix("\n") if pattern.endswith("\n") else pattern + r"[^\n]*"
