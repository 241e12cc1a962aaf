"""The table of limits as the page has it, and the functions that exercise its rows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

PAGE: Final = Path(__file__).resolve().parents[3] / "docs" / "security.md"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One limit."""

    what: str
    limit: str
    """As it is written: ``1,048,576``, ``1 s``."""
    setting: str
    """``rebuilder.stream_max_entries``; empty where it is no setting."""
    happens: str

    @property
    def number(self) -> int:
        """The limit as a whole number."""
        return int(self.limit.replace(",", ""))


Exercise = Callable[[Row, pytest.FixtureRequest], None]
"""Goes up to the limit and beyond it, and asserts what the row says of both.

Its fixtures it takes from the request.
"""

EXERCISES: Final[dict[str, Exercise]] = {}
"""By what a row is about."""


def exercises(what: str) -> Callable[[Exercise], Exercise]:
    """The decorated function exercises the row that is about ``what``."""

    def register(exercise: Exercise) -> Exercise:
        assert what not in EXERCISES, f"two exercises for {what!r}"
        EXERCISES[what] = exercise
        return exercise

    return register


def rows(page: str | None = None) -> list[Row]:
    """The rows of the page's table of limits."""
    text = PAGE.read_text(encoding="utf-8") if page is None else page
    section = text.partition("\n## Limits\n")[2].partition("\n## ")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    return [
        Row(what=what, limit=limit, setting=setting.strip("`"), happens=happens)
        for what, limit, setting, happens in cells[2:]
    ]
