"""What is printed, and how: one answer on stdout, everything else on stderr.

- Answers are one JSON document or tables. `Answers` keeps stdout free of whatever a user's module
  prints while it is imported, so that ``indexrelay status --json | jq`` always works.
- Streams take any text in any locale: a character that the encoding lacks is spelled otherwise
  (``ok`` for ``✓``). A closed stream leads nowhere, so that no file that is opened later takes its
  descriptor and gets an answer written into it.
- Text that comes from data is shown without its control characters: it cannot recolour or rename
  the terminal. None of it is read as markup.
- A command that is shown works where it is pasted: it names the program and the settings as this
  process was called with them.
"""

import codecs
import contextlib
import io
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from indexrelay.console.errors import ExitCode
from indexrelay.schemas.commands import PROGRAM

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console
    from rich.text import Text

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
_NO_TERMINAL_COLUMNS: Final = 100_000
"""Without a terminal a row is one line, for `grep` and `awk`."""


class Answers:
    """Where a command's answer goes, once other code runs in this process.

    From `reserve` on ``sys.stdout`` and descriptor 1 are stderr, for Python, C and child processes
    alike; only what is written to `stream` gets to the real stdout.
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
        """Keep stdout for answers; safe twice."""
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
            with contextlib.suppress(OSError):  # the flush above raised it
                kept.close()


ANSWERS: Final = Answers()
"""This process's one stdout."""


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


def leave_quietly() -> None:
    """Discard what is left to write: whatever read it, such as ``head``, has ended."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def stdout() -> "Console":
    """For what was asked for."""
    from rich.console import Console

    class AnswerConsole(Console):
        """Ends with our exit code where rich has one of its own, and cuts nothing off."""

        def on_broken_pipe(self) -> None:
            raise SystemExit(ExitCode.UNREAD)

        def print(self, *objects: Any, crop: bool = False, **how: Any) -> None:
            # What is longer than a line is a command, and a command is never cut off.
            super().print(*objects, crop=crop, **how)

    return _unlimited(
        AnswerConsole(file=ANSWERS.stream, markup=False, highlight=False, emoji=False)
    )


def stderr() -> "Console":
    """For progress, notes and errors."""
    from rich.console import Console

    return _unlimited(Console(stderr=True, markup=False, highlight=False, emoji=False))


def note(text: str) -> None:
    """Print a line beside the result."""
    stderr().print(text, soft_wrap=True)


def print_json(document: "BaseModel | dict[str, Any] | list[Any]") -> None:
    """Write one JSON document, indented for a person.

    It may quote text that comes from data; JSON itself escapes only what is below a space.
    """
    value = document if isinstance(document, dict | list) else document.model_dump(mode="json")
    text = visible_json(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
    stream = ANSWERS.stream
    if not _can_write(text, stream):
        text = json.dumps(value, indent=2, allow_nan=False)
    ANSWERS.given = True
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        sys.exit(ExitCode.UNREAD)


def visible(text: str) -> str:
    """``text`` without anything unprintable (`indexrelay.schemas.names.visible`).

    That is imported here, since ``--help`` needs no models.
    """
    from indexrelay.schemas.names import visible as made_visible

    return made_visible(text)


def visible_lines(text: str) -> str:
    """The same for text that may take several lines: these stay, and tabs are spaces."""
    return "\n".join(visible(line) for line in text.expandtabs(4).split("\n"))


def visible_json(document: str) -> str:
    r"""The same for a JSON document: equal when parsed, with ``\uNNNN`` in its texts."""
    return "".join(
        each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in document
    )


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """How this program was called: its name, and the settings that the command line named.

    Whoever runs ``.venv/bin/indexrelay status --config etc/indexrelay.toml`` has no ``indexrelay``
    on the PATH and no settings in the current folder. A command that is shown to them names both.
    """

    program: str = PROGRAM
    config: str | None = None

    @classmethod
    def of(cls, argv: Sequence[str]) -> "Invocation":
        """From ``sys.argv``."""
        return cls(program=_program(argv[0] if argv else PROGRAM), config=_config(argv[1:]))

    def adapt(self, text: str) -> str:
        """``text`` with its commands as they have to be written here."""
        if self.program == PROGRAM and self.config is None:
            return text
        named = "" if self.config is None else f" --config {shlex.quote(self.config)}"
        try:
            commands, configured = _commands()
        except ModuleNotFoundError:
            return text  # the command line's extra is missing, and the sentence names it
        return commands.sub(
            lambda found: f"{self.program} {found[1]}{named if found[1] in configured else ''}",
            text,
        )


def adapted(text: str) -> str:
    """``text`` with its commands as this process was called."""
    return Invocation.of(sys.argv).adapt(text)


def advice_line(advice: str) -> "Text":
    """Advice below what it is about; never wrapped, since a command in it is pasted as one line."""
    from rich.text import Text

    return Text(f"  → {visible(adapted(advice))}", no_wrap=True, overflow="ignore")


def _program(called: str) -> str:
    """What a shell needs: the bare name where that finds the same program."""
    if Path(called).name != PROGRAM or "/" not in called:
        return PROGRAM
    found = shutil.which(PROGRAM)
    if found is not None and Path(found).absolute() == Path(called).absolute():
        return PROGRAM
    return shlex.quote(called)


def _config(arguments: Sequence[str]) -> str | None:
    """The value of ``--config``, however it was written; the last one counts."""
    config = None
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--config" and equals:
            config = value
        elif argument in ("--config", "-c") and index + 1 < len(arguments):
            config = arguments[index + 1]
        elif argument == "--":
            break
    return config


@cache
def _commands() -> tuple[re.Pattern[str], frozenset[str]]:
    """Any command, its name in the first group; and those that take ``--config``."""
    from indexrelay.console.commands import command_names

    every = sorted(command_names(configured=False), key=len, reverse=True)
    names = "|".join(map(re.escape, every))
    return re.compile(rf"\b{PROGRAM} ({names})(?![\w-])"), frozenset(command_names())


def _unlimited(console: "Console") -> "Console":
    """Without a terminal there is no width to keep to, unless ``COLUMNS`` gives one."""
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = _NO_TERMINAL_COLUMNS
    return console


def _can_write(text: str, stream: TextIO) -> bool:
    """Whether the stream's encoding has every character of ``text``."""
    try:
        text.encode(stream.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


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
    except (OSError, ValueError):  # a test's stream has none
        return None
