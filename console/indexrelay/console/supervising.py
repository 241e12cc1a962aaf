"""Keeping a set of children alive: one that ends is started again, later each time it does so soon.

A reader whose mapped file was damaged dies at once by a signal, and is to come back on the newest
good version; one that cannot start at all is not to take a whole core. So the pause before a
restart doubles with every early end, and starts small again once a child has lived for a while.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger

log = get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
SETTLED_SECONDS = 60.0
"""A child that lived this long has not failed to start; its next end is a new story."""


class Supervised(Protocol):
    """What is supervised: `processes.Child`."""

    name: str

    @property
    def running(self) -> bool:
        """Whether it runs."""
        ...

    @property
    def exit_code(self) -> int | None:
        """How it ended."""
        ...

    def start(self) -> None:
        """Start it."""
        ...

    def ask_to_stop(self) -> None:
        """Ask it to stop, without waiting."""
        ...

    def stop(self, *, grace_seconds: float) -> None:
        """Stop it; safe twice and before `start`."""
        ...


@dataclass(kw_only=True)
class _Watched:
    child: Supervised
    started: float = 0.0
    early_ends: int = 0
    restarts: int = 0
    restart_at: float | None = None


def stop_together(children: Sequence[Supervised], *, grace_seconds: float) -> None:
    """Ask all, then wait for each: as long as the slowest takes, not as long as all of them."""
    for child in children:
        child.ask_to_stop()
    for child in children:
        child.stop(grace_seconds=grace_seconds)


class Supervisor:
    """Starts children stage by stage, restarts those that end, stops the last stage first."""

    def __init__(self, *stages: Sequence[Supervised], clock: Clock) -> None:
        self._stages = stages
        self._watched = [_Watched(child=child) for stage in stages for child in stage]
        self._clock = clock

    @property
    def restarts(self) -> dict[str, int]:
        """How many times each child was started again."""
        return {watched.child.name: watched.restarts for watched in self._watched}

    def start(self) -> None:
        """Start every child, in the order given."""
        for watched in self._watched:
            self._start(watched)

    def look(self) -> None:
        """Notice who ended and start again whose pause is over; call it a few times a second."""
        now = self._clock.monotonic()
        for watched in self._watched:
            if watched.child.running:
                continue
            if watched.restart_at is None:
                self._plan_restart(watched, now)
            elif now >= watched.restart_at:
                watched.restarts += 1
                self._start(watched)

    def stop(self, *, grace_seconds: float) -> None:
        """Stop every child, the last stage first; each child gets ``grace_seconds``."""
        for stage in reversed(self._stages):
            stop_together(stage, grace_seconds=grace_seconds)

    def _start(self, watched: _Watched) -> None:
        watched.child.start()
        watched.started = self._clock.monotonic()
        watched.restart_at = None
        log.info("process.started", process=watched.child.name, restarts=watched.restarts)

    def _plan_restart(self, watched: _Watched, now: float) -> None:
        early = now - watched.started < SETTLED_SECONDS
        watched.early_ends = watched.early_ends + 1 if early else 1
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (watched.early_ends - 1), LONGEST_PAUSE_SECONDS)
        watched.restart_at = now + pause
        log.warning(
            "process.ended",
            process=watched.child.name,
            exit_code=watched.child.exit_code,
            restart_in_seconds=pause,
        )
