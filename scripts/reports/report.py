"""One reported input: what somebody did, what should come of it, and the code that does it again.

A row is a `Report`. Its ``attempt`` gets an empty folder and returns what came of it, or raises.
The **verdict** is that in one line, and ``wanted`` is a regular expression that the verdict has to
match. To add the next report, add a row to the module of its section:

    Report(
        item="B7",
        tried="a set of ids beside a matrix",
        wanted=r"InvalidEntriesError: ids must be a sequence",
        attempt=lambda _: check({"a", "b"}, [[1, 0], [0, 1]]),
    ),
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    attempt: Callable[[Path], object]
    """Does it in the empty folder that it gets, and returns what came of it."""


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


def try_report(report: Report) -> Verdict:
    """Do it again, in a folder of its own; whatever it raises is its verdict."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="indexrelay-report-") as folder:
        try:
            found = str(report.attempt(Path(folder)))
        except Exception as error:  # noqa: BLE001 - the error is what is looked at
            found = f"{type(error).__name__}: {error}"
    found = " ".join(found.split())[:_SHOWN_CHARACTERS]
    return Verdict(report=report, found=found, seconds=time.monotonic() - started)
