"""One module for each fault; `SCENARIOS` says how often each of them runs when nobody says."""

from dataclasses import dataclass

from faults.rows import Scenario
from faults.scenarios import (
    clocks,
    corruption,
    crashing_servers,
    disconnecting,
    failing_over,
    flooding,
    forks,
    groups,
    intruding,
    killing_at_random,
    kills,
    memory,
    messages,
    misdating,
    oversleeping,
    poisoning,
    publishers,
    repeating,
    servers,
    stalling,
    starting,
    terminating,
    unsettling,
    volumes,
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
    "F1": Entry(kills.run),
    "F3": Entry(terminating.run),
    "F6": Entry(servers.run),
    "F4": Entry(clocks.run, runs=100),
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
    "F21": Entry(forks.run, runs=50),
    "F18": Entry(memory.run, runs=10),
    "F20": Entry(failing_over.run, runs=5),
    "F22": Entry(groups.run, runs=50),
    "F23": Entry(intruding.run, runs=3),
    "F24": Entry(messages.run, runs=20),
    "F10": Entry(volumes.run, runs=5, by_server=False),
    "F11": Entry(corruption.run, runs=3, by_server=False),
    "F19": Entry(publishers.run, runs=100, by_server=False),
}
