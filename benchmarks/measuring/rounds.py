"""The one way in which things are compared: in turn, several times, by medians.

A machine has slow minutes: another process, a hotter chip, a neighbour on the same host. Whoever
measures all of A and then all of B measures the minutes. So every round runs each contender once,
in the opposite order to the round before, and a ratio is taken **within** each round; the figure is
the median of these ratios. One round before the first is thrown away: it fills caches.

What a contender prepares is not timed, and the garbage of the one before is collected first.
"""

import gc
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from measuring.findings import Measured

FEWEST_ROUNDS = 5
"""Of fewer rounds the median still follows a single bad one."""

Contender = Callable[[], float]
"""Does its share of one round, and says how many seconds that took."""
Say = Callable[[str], None]
"""Tells whoever waits where it stands."""
PreparedT = TypeVar("PreparedT")


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """Seconds of every contender in every round."""

    seconds: Mapping[str, tuple[float, ...]]

    def ratio(self, name: str, other: str) -> float:
        """Median of ``name``'s seconds ÷ ``other``'s, round by round: below 1 is faster."""
        pairs = zip(self.seconds[name], self.seconds[other], strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)

    def speed(self, name: str, other: str) -> float:
        """Median of ``name``'s speed ÷ ``other``'s for the same work: above 1 is faster."""
        return self.ratio(other, name)

    def median(self, name: str) -> float:
        """Seconds in the middle round."""
        return statistics.median(self.seconds[name])

    def rates(self, name: str, amount: float, unit: str, *, called: str = "") -> Measured:
        """How much a second, where one round does ``amount``; ``called``: in the result."""
        values = tuple(amount / seconds for seconds in self.seconds[name])
        return Measured(name=called or name, unit=unit, values=values)

    def durations(self, name: str, *, called: str = "") -> Measured:
        """How long; ``called``: in the result."""
        return Measured(name=called or name, unit="s", values=self.seconds[name])


def interleaved(
    contenders: Mapping[str, Contender],
    *,
    rounds: int,
    say: Say,
    warm_up: bool = True,
) -> Rounds:
    """Run every contender once in each round, forwards and backwards in turn.

    Args:
        contenders: by their names, in the order of the first round.
        rounds: at least `FEWEST_ROUNDS`.
        say: told before each turn.
        warm_up: run a round first that does not count.
    """
    if rounds < FEWEST_ROUNDS:
        raise ValueError(f"rounds={rounds}: at least {FEWEST_ROUNDS}, or the median says little")
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(0 if warm_up else 1, rounds + 1):
        order = list(contenders) if number % 2 else list(contenders)[::-1]
        for name in order:
            say(f"{name}: {f'round {number} of {rounds}' if number else 'warming up'}")
            gc.collect()
            took = contenders[name]()
            if not took > 0:
                raise ValueError(f"{name} says that it took {took} s: it did not measure")
            if number:
                seconds[name].append(took)
    return Rounds(seconds={name: tuple(values) for name, values in seconds.items()})


def on_two_threads(contender: Contender) -> Contender:
    """The same work twice at a time, in half of its time where threads do not hinder each other."""

    def turn() -> float:
        threads = [threading.Thread(target=contender) for _ in range(2)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (time.perf_counter() - began) / 2

    return turn


def timed(work: Callable[[], object]) -> Contender:
    """A contender out of something that is worth timing whole."""

    def turn() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return turn


def prepared(
    prepare: Callable[[], PreparedT],
    work: Callable[[PreparedT], object],
    clear: Callable[[PreparedT], object] | None = None,
) -> Contender:
    """A contender that needs something new for each turn; only ``work`` is timed."""

    def turn() -> float:
        given = prepare()
        try:
            began = time.perf_counter()
            work(given)
            return time.perf_counter() - began
        finally:
            if clear is not None:
                clear(given)

    return turn
