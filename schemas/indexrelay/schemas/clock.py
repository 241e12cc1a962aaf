"""Time: the clock that is handed in, the wait before a retry, and a thread that retries its body.

Everything that waits or stamps is handed a clock. Production hands in `SystemClock`; tests hand in
one that they move by hand, so that no test sleeps.

The wait before a retry doubles with every failure in a row, up to a longest one, and is then moved
by up to a fifth (*jitter*): what failed together (fifty readers on one full disk) does not come
back together. The jitter is not drawn, it follows from the key and the count, so that two processes
that ask about the same thing agree, and a test needs no chance.

Python prints what a thread raised to stderr, if anybody reads that, and everything else goes on
without it. Each thread of ours is a `SupervisedThread`: whatever its body raises is logged; then it
backs off and begins the body again. `SystemExit` counts too, since a user's function may raise it.
`Background` is one that does the same thing again and again, at its own pace.
"""

import hashlib
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, TypeAlias

from indexrelay.schemas.loggers import get_logger


class Clock(Protocol):
    """Wall-clock and monotonic time."""

    def now(self) -> datetime:
        """Wall-clock time, in UTC: for stamps that people read. It may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow: for every duration, time-out and back-off."""
        ...


_MOST_AHEAD: Final = timedelta(minutes=5)


def is_ahead(stamp: datetime, now: datetime) -> bool:
    """Whether a stamp was made by a clock that was wrong: clocks of hosts differ by seconds."""
    return stamp - now > _MOST_AHEAD


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """The current time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some fixed point of this process's machine."""
        return time.monotonic()


JITTER_SHARE: Final = 0.2
"""The jitter, as a share of the wait, either way."""
_MOST_DOUBLINGS = 62
"""A retry may go on for weeks, and a float ends at 2 ** 1024."""


def backoff_seconds(count: int, *, first: float, longest: float, key: str) -> float:
    """The wait after the ``count``-th failure in a row, from 1.

    Args:
        count: failures in a row.
        first: seconds after the first one.
        longest: seconds that no wait exceeds before jitter.
        key: what failed, and where it matters who tried it: equal keys give equal waits.
    """
    wait = min(first * 2.0 ** min(count - 1, _MOST_DOUBLINGS), longest)
    digest = hashlib.sha256(f"{key}\n{count}".encode()).digest()
    jitter = int.from_bytes(digest[:8], "big") / 2**63 - 1.0  # in [-1, 1)
    return wait * (1.0 + JITTER_SHARE * jitter)


_log = get_logger(__name__)

Wait: TypeAlias = Callable[[float], bool]
"""Waits at most so many seconds; whether it is time to end. An event's ``wait`` is one."""

_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0


class SupervisedThread(threading.Thread):
    """A daemon thread that runs ``body`` until it returns, and again where it raises."""

    def __init__(self, body: Callable[[], None], *, name: str, wait: Wait | None) -> None:
        """Run ``body`` once started.

        Args:
            name: of the thread, for logs and debuggers.
            wait: between two attempts; ``None``: the body is not retried, since it notifies those
                that wait for it in a ``finally``.
        """
        super().__init__(name=name, daemon=True)
        self._body = body
        self._wait = wait

    def run(self) -> None:
        """Run the body, and back off and run it again where it raises."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                self._body()
            except BaseException as error:  # noqa: BLE001 - reported, and run again
                ran_well = time.monotonic() - began > _LONGEST_PAUSE_SECONDS
                failures = 1 if ran_well else failures + 1
                pause = backoff_seconds(
                    failures,
                    first=_FIRST_PAUSE_SECONDS,
                    longest=_LONGEST_PAUSE_SECONDS,
                    key=self.name,
                )
                _log.exception(
                    "thread.interrupted",
                    thread=self.name,
                    error=f"{type(error).__name__}: {error}",
                    again_in_seconds=None if self._wait is None else round(pause, 3),
                )
                if self._wait is None or self._wait(pause):
                    return
            else:
                return


class Background:
    """Calls ``act`` again and again on a thread of its own, and at once when it is woken."""

    def __init__(self, act: Callable[[], float], *, name: str) -> None:
        """``act`` returns the seconds until it is to be called again."""
        self._act = act
        self._ended = False
        self._woken = threading.Event()
        self._thread = SupervisedThread(self._run, name=f"indexrelay-{name}", wait=self._pause)
        self._started = False

    def start(self) -> None:
        """Start the thread; safe twice, and nothing once it was ended."""
        if not self._started and not self._ended:
            self._started = True
            self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the thread was started and has not ended."""
        return self._thread.is_alive()

    def wake(self) -> None:
        """Have ``act`` called now, or again if it runs; from any thread."""
        self._woken.set()

    def end(self) -> None:
        """Let it end after the call that runs, and return at once."""
        self._ended = True
        self._woken.set()

    def stop(self) -> None:
        """End it, and return when it has ended; safe twice and before `start`."""
        self.end()
        if self._started:
            self._thread.join()

    def _run(self) -> None:
        while not self._ended:
            self._woken.clear()
            if self._ended:  # between these two lines
                return
            self._pause(self._act())

    def _pause(self, seconds: float) -> bool:
        """Wait; whether it has ended."""
        self._woken.wait(seconds)
        return self._ended
