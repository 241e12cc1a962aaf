"""One module for each fault; `SCENARIOS` says how often each of them runs when nobody says."""

from dataclasses import dataclass

from tests.faults.rows import Scenario
from tests.faults.scenarios import emptying, killing, repeating, sleeping, terminating


@dataclass(frozen=True)
class Entry:
    """One row of the table."""

    run: Scenario
    runs: int = 20
    """By default; of F1: at each failpoint."""


SCENARIOS = {
    "F13": Entry(repeating.run),
    "F1": Entry(killing.run),
    "F3": Entry(terminating.run),
    "F6": Entry(emptying.run),
    "F4": Entry(sleeping.run, runs=100),
}
