"""One module for each fault; `SCENARIOS` says how often each of them runs when nobody says."""

from dataclasses import dataclass

from tests.faults.rows import Scenario
from tests.faults.scenarios import (
    corrupting,
    crashing_servers,
    disconnecting,
    emptying,
    failing_over,
    filling,
    flooding,
    forging,
    forking,
    intruding,
    killing,
    killing_at_random,
    misdating,
    oversleeping,
    poisoning,
    publishing_at_once,
    repeating,
    running_out_of_memory,
    sleeping,
    splitting,
    stalling,
    starting,
    terminating,
    unsettling,
)


@dataclass(frozen=True)
class Entry:
    """One row of the table."""

    run: Scenario
    runs: int = 20
    """By default; of F1: at each failpoint, of F10 and F11: with each file and kind of damage."""
    by_server: bool = True
    """Whether it may turn out otherwise on another server; what is about disks runs on one."""


SCENARIOS = {
    "F13": Entry(repeating.run),
    "F1": Entry(killing.run),
    "F3": Entry(terminating.run),
    "F6": Entry(emptying.run),
    "F4": Entry(sleeping.run, runs=100),
    "F7": Entry(unsettling.run, runs=4),
    "F5": Entry(crashing_servers.run, runs=10),
    "F2": Entry(killing_at_random.run, runs=10),
    "F14": Entry(oversleeping.run),
    "F16": Entry(flooding.run, runs=5),
    "F12": Entry(poisoning.run, runs=5),
    "F8": Entry(stalling.run),
    "F17": Entry(misdating.run),
    "F9": Entry(disconnecting.run, runs=3),
    "F15": Entry(starting.run, runs=5),
    "F21": Entry(forking.run, runs=50),
    "F18": Entry(running_out_of_memory.run, runs=10),
    "F20": Entry(failing_over.run, runs=5),
    "F22": Entry(splitting.run, runs=50),
    "F23": Entry(intruding.run, runs=3),
    "F24": Entry(forging.run, runs=20),
    "F10": Entry(filling.run, runs=5, by_server=False),
    "F11": Entry(corrupting.run, runs=3, by_server=False),
    "F19": Entry(publishing_at_once.run, runs=100, by_server=False),
}
