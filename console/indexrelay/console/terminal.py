"""Standard streams that take whatever a command says, on any terminal and in any locale.

A stream whose encoding lacks a character gets another spelling of it instead of an error: ``ok``
for ``✓``, ``->`` for ``→``, and the code of anything else, as in a Python text. Streams that are
closed lead nowhere, so that no file that is opened later takes their descriptor and gets a
command's answer written into it.
"""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Final, TextIO

_SPELLING: Final = "indexrelay.spelled"
"""The name of our rule among Python's handlers of encoding errors."""
_SPELLINGS: Final = {
    "✓": "ok",
    "⚠": "!!",
    "✗": "XX",
    "·": "-",
    "→": "->",
    "←": "<-",
    "…": "...",
    "\u2013": "-",
    "\u2014": "-",
    "\u2212": "-",
    "\u00d7": "x",
    "≥": ">=",
    "≤": "<=",
    "─": "-",
    "│": "|",
    "\u201c": '"',
    "\u201d": '"',
    "\u2019": "'",
}


def prepare_streams() -> None:
    """Make stdin, stdout and stderr usable, whatever this process was started with; safe twice."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # the lowest free number is this one
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error(_SPELLING, _spelled)
    # A closed stream is None: https://docs.python.org/3/library/sys.html#sys.__stderr__
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_SPELLING)


def can_write(text: str, stream: TextIO) -> bool:
    """Whether the stream's encoding has every character of ``text``."""
    try:
        text.encode(stream.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class Answers:
    """Where a command's answer goes, once other code runs in this process.

    A user's module may print while it is imported, and so may whatever it loads. From `reserve` on
    ``sys.stdout`` and descriptor 1 are stderr, for Python, C and child processes alike; only what
    is written to `stream` gets to the real stdout.
    """

    def __init__(self) -> None:
        self._kept: TextIO | None = None
        self._replaced: TextIO | None = None
        self.given = False
        """Whether a JSON document was written."""

    @property
    def stream(self) -> TextIO:
        """The real stdout."""
        return self._kept or sys.stdout

    def reserve(self) -> None:
        """Keep stdout for answers; nothing when that was done."""
        if self._kept is not None:
            return
        self._replaced = self._kept = sys.stdout
        if _descriptor(sys.stdout) == 1:
            sys.stdout.flush()
            self._kept = os.fdopen(  # `give_back` closes it
                os.dup(1),
                mode="w",
                encoding=sys.stdout.encoding,
                errors=sys.stdout.errors,
                newline="\n",
                buffering=1 if sys.stdout.isatty() else -1,
            )
            os.dup2(2, 1)
        sys.stdout = sys.stderr

    def give_back(self) -> None:
        """Make stdout what it was; safe twice and before `reserve`.

        Raises:
            OSError: what was left to write cannot be written.
        """
        kept, replaced = self._kept, self._replaced
        self._kept = self._replaced = None
        self.given = False
        if kept is None or replaced is None:
            return
        sys.stdout = replaced
        if kept is replaced:
            return
        try:
            kept.flush()
        finally:
            os.dup2(kept.fileno(), 1)
            with contextlib.suppress(OSError):  # it was told above
                kept.close()


ANSWERS: Final = Answers()
"""This process's one stdout."""


def leave_quietly() -> None:
    """Have what is left to write go nowhere: whoever read it, such as ``head``, is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_spellings(error.object[error.start : error.end])), error.end


def _spellings(text: str) -> Iterator[str]:
    for character in text:
        yield _SPELLINGS.get(character) or character.encode("ascii", "backslashreplace").decode()


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - as long as the process


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):  # a test's stream is none of a descriptor
        return None
