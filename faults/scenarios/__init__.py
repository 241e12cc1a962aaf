"""Every fault: what runs it, and how often it runs by default."""

from dataclasses import dataclass

from faults.rows import Scenario
from faults.scenarios import (
    clocks,
    corruption,
    groups,
    instances,
    kills,
    live,
    messages,
    publishers,
    readers,
    servers,
    sessions,
    volumes,
)


@dataclass(frozen=True)
class Entry:
    """One row of the table."""

    run: Scenario
    runs: int = 20
    """By default; of F1: at each failpoint, of F10 and F11: each file and kind of corruption."""
    by_server: bool = True
    """Whether it may turn out otherwise on another server; what is about disks runs on one."""


SCENARIOS = {
    "F13": Entry(kills.with_repeats),
    "F1": Entry(kills.at_failpoints),
    "F3": Entry(kills.by_sigterm),
    "F6": Entry(servers.emptied),
    "F4": Entry(clocks.of_a_lease_holder, runs=100),
    "F7": Entry(servers.unsettled, runs=4),
    "F5": Entry(servers.killed, runs=10),
    "F2": Entry(kills.at_random, runs=10),
    "F14": Entry(clocks.of_a_reader),
    "F16": Entry(messages.flooded, runs=5),
    "F12": Entry(messages.poisoned, runs=5),
    "F8": Entry(servers.stalled),
    "F17": Entry(clocks.set_wrong),
    "F9": Entry(servers.disconnected, runs=3),
    "F15": Entry(readers.in_a_herd, runs=5),
    "F21": Entry(readers.as_forks, runs=50),
    "F18": Entry(servers.out_of_memory, runs=10),
    "F20": Entry(servers.failed_over, runs=5),
    "F22": Entry(groups.run, runs=50),
    "F23": Entry(messages.intruded, runs=3),
    "F24": Entry(messages.forged, runs=20),
    "F25": Entry(live.follow_through, runs=20 * len(live.FAULTS)),
    "F26": Entry(sessions.keep, runs=20 * len(sessions.FAULTS)),
    "F27": Entry(instances.killed, runs=20 * len(instances.STEPS)),
    "F28": Entry(instances.limited, runs=20 * len(instances.FAULTS)),
    "F10": Entry(volumes.run, runs=5, by_server=False),
    "F11": Entry(corruption.corrupted, runs=3, by_server=False),
    "F19": Entry(publishers.run, runs=100, by_server=False),
}
