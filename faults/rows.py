"""What one fault's runs came to, and how the table shows it."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_HEAD = f"{'fault':<6} {'server':<8} {'runs':>5} {'held':>5} {'median s':>9} {'max s':>7}"


@dataclass(kw_only=True)
class Row:
    """The runs of one fault on one server."""

    fault: str
    server: str = ""
    timed: bool = True
    """Whether a run that recovered too late did not hold; beside other tests, where the reason of a
    delay is not known, it is only measured."""
    runs: int = 0
    held: int = 0
    recovery_seconds: list[float] = field(default_factory=list)
    """One for each run that has something to recover from."""
    broken: list[str] = field(default_factory=list)
    """What did not hold, and where."""
    figures: list[str] = field(default_factory=list)
    """What was measured on the way."""

    @contextmanager
    def run(self, what: str) -> Iterator[None]:
        """One run: it held if nothing was raised, and if `broke` was not called."""
        self.runs += 1
        broken = len(self.broken)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a run that fails is a row that did not hold
            self.broken.append(f"{what}: {type(error).__name__}: {error}")
        self.held += len(self.broken) == broken

    def recovered(self, seconds: float, *, within: float) -> None:
        """It took so long, and was allowed to take ``within``."""
        self.recovery_seconds.append(seconds)
        late = f"recovered after {seconds:.2f} s, {within:.2f} s were allowed"
        assert seconds <= within or not self.timed, late

    def broke(self, violations: list[str]) -> None:
        """The history of the runs so far breaks these."""
        if violations:
            self.broken += violations
            self.held = min(self.held, self.runs - 1)

    @property
    def line(self) -> str:
        seconds = self.recovery_seconds
        median = f"{statistics.median(seconds):.2f}" if seconds else "-"
        longest = f"{max(seconds):.2f}" if seconds else "-"
        numbers = f"{self.runs:>5} {self.held:>5} {median:>9} {longest:>7}"
        return f"{self.fault:<6} {self.server:<8} {numbers}"

    def as_json(self) -> dict[str, Any]:
        seconds = self.recovery_seconds
        return {
            "fault": self.fault,
            "server": self.server,
            "runs": self.runs,
            "held": self.held,
            "recovery_seconds": {
                "median": round(statistics.median(seconds), 3) if seconds else None,
                "max": round(max(seconds), 3) if seconds else None,
            },
            "broken": self.broken,
            "figures": self.figures,
        }


def head() -> str:
    """The line above the table."""
    return _HEAD


Scenario = Callable[[Path, Row, int], None]
"""Runs one fault on a server program, so many times, and fills in the row."""
