"""How this program was called, so that a command which it prints works where it is pasted.

Whoever runs ``.venv/bin/indexrelay status --config etc/indexrelay.toml`` has no ``indexrelay`` on
the PATH and no settings in the current folder. A command that is shown to them says both.
"""

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from indexrelay.console.escaping import visible
from indexrelay.schemas.commands import PROGRAM

if TYPE_CHECKING:
    from rich.text import Text


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """The program and the settings that were named on the command line."""

    program: str = PROGRAM
    config: str | None = None

    @classmethod
    def of(cls, argv: Sequence[str]) -> "Invocation":
        """What ``sys.argv`` says."""
        return cls(program=_program(argv[0] if argv else PROGRAM), config=_config(argv[1:]))

    def adapt(self, text: str) -> str:
        """``text`` with its commands as they have to be written here."""
        if self.program == PROGRAM and self.config is None:
            return text
        named = "" if self.config is None else f" --config {shlex.quote(self.config)}"
        try:
            commands = _commands()
        except ModuleNotFoundError:
            return text  # the command line's extra is missing, and the sentence says which
        return commands.sub(lambda found: f"{self.program} {found[1]}{named}", text)


def adapted(text: str) -> str:
    """``text`` for whoever called this program."""
    return Invocation.of(sys.argv).adapt(text)


def advice_line(advice: str) -> "Text":
    """Advice below what it is about; never wrapped, since a command in it is pasted as one line."""
    from rich.text import Text

    return Text(f"  → {visible(adapted(advice))}", no_wrap=True, overflow="ignore")


def _program(called: str) -> str:
    """What the shell has to be told: the bare name where that finds the same program."""
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
def _commands() -> re.Pattern[str]:
    """Any command that takes ``--config``, its name in the first group."""
    from indexrelay.console.command_line import command_names

    names = "|".join(re.escape(name) for name in sorted(command_names(), key=len, reverse=True))
    return re.compile(rf"\b{PROGRAM} ({names})(?![\w-])")
