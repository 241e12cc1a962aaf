"""What goes where: one JSON document or tables on stdout, everything else on stderr.

So ``indexrelay status --json | jq`` works whatever is being said meanwhile. Names and errors come
from data and may hold brackets, so nothing that is printed is read as markup. Without a terminal
lines are as long as they need to be: `grep` and `awk` want a row on one line.
"""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from indexrelay.console.escaping import visible_json
from indexrelay.console.exits import ExitCode
from indexrelay.console.terminal import ANSWERS, can_write

if TYPE_CHECKING:
    from rich.console import Console

_NO_TERMINAL_COLUMNS = 100_000


def stdout() -> "Console":
    """For what was asked for."""
    from rich.console import Console

    class AnswerConsole(Console):
        """Ends with our code where rich has one of its own, and cuts nothing off."""

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


def _unlimited(console: "Console") -> "Console":
    """Without a terminal there is no width to keep to, unless someone says so in ``COLUMNS``."""
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = _NO_TERMINAL_COLUMNS
    return console


def print_json(document: BaseModel | dict[str, Any] | list[Any]) -> None:
    """Write one JSON document, indented for a person who looks at it anyway.

    It may quote strangers; JSON itself escapes only what is below a space.
    """
    value = document.model_dump(mode="json") if isinstance(document, BaseModel) else document
    text = visible_json(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
    stream = ANSWERS.stream
    if not can_write(text, stream):
        text = json.dumps(value, indent=2, allow_nan=False)
    ANSWERS.given = True
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        sys.exit(ExitCode.UNREAD)


def note(text: str) -> None:
    """Say something beside the result."""
    stderr().print(text, soft_wrap=True)
