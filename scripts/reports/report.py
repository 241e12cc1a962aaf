"""One reported input: what somebody did, what should come of it, and the code that does it again.

A row is a `Report`. Its attempt gets an empty folder and returns what came of it, or raises. The
**verdict** is that in one line, and ``wanted`` is a regular expression that the verdict has to
match from its beginning. To add the next report, add a line to the module of its section:

    ("a set of ids beside a matrix", "ids must be a sequence", batch({"a", "b"})),
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import re
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

Attempt: TypeAlias = Callable[[Path], object]
"""Does it in the empty folder that it gets, and returns what came of it."""
LONGEST_SECONDS = 60.0
"""What takes longer has come to nothing; its thread is left behind."""
_SHOWN_CHARACTERS = 300
"""Of a verdict: the sentence that says it, and not a page."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """One input that was reported, and what it has to come to."""

    item: str
    """Section and number in the issue: ``B7``."""
    tried: str
    """What somebody did, in a few words."""
    wanted: str
    """A regular expression that matches the verdict, from its beginning."""
    attempt: Attempt
    starts_processes: bool = False
    """Whether it takes seconds: the suite has tests of its own for what it says, and leaves it."""


def reports(
    item: str, *rows: tuple[str, str, Attempt], says: str = "", processes: bool = False
) -> tuple[Report, ...]:
    """The rows of one item: what was tried, what is wanted (after ``says``), how to try it."""
    return tuple(
        Report(
            item=item,
            tried=tried,
            wanted=says + wanted,
            attempt=attempt,
            starts_processes=processes,
        )
        for tried, wanted, attempt in rows
    )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of one report."""

    report: Report
    found: str
    """The value that came, or the error as ``Type: message``; in one line."""
    seconds: float

    @property
    def right(self) -> bool:
        """Whether it is what is wanted."""
        return re.match(self.report.wanted, self.found, re.DOTALL) is not None

    def as_json(self) -> dict[str, Any]:
        """For a program."""
        return {
            "item": self.report.item,
            "tried": self.report.tried,
            "wanted": self.report.wanted,
            "found": self.found,
            "right": self.right,
            "seconds": round(self.seconds, 3),
        }


def try_report(report: Report, *, longest_seconds: float = LONGEST_SECONDS) -> Verdict:
    """Do it again, in a folder of its own; whatever it raises is its verdict."""
    started = time.monotonic()
    came: list[str] = []

    def attempt(folder: Path) -> None:
        try:
            came.append(str(report.attempt(folder)))
        except Exception as error:  # noqa: BLE001 - the error is what is looked at
            came.append(f"{type(error).__name__}: {error}")

    with tempfile.TemporaryDirectory(prefix="indexrelay-report-") as folder:
        thread = threading.Thread(target=attempt, args=(Path(folder),), daemon=True)
        thread.start()
        thread.join(longest_seconds)
    found = came[0] if came else f"nothing within {longest_seconds:g} s"
    found = " ".join(found.split())[:_SHOWN_CHARACTERS]
    return Verdict(report=report, found=found, seconds=time.monotonic() - started)
