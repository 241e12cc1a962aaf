"""A thread that never dies silently.

Python prints what a thread raised to stderr, if anybody reads that, and everything else goes on
without it: presence is not renewed, nothing is scrubbed, no event is read. Each thread of ours is
one of these. Whatever its body raises is logged; then it backs off, a little longer each time, and
begins the body again. `SystemExit` counts too, since a user's function may call `sys.exit`.
"""

import threading
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from indexrelay.schemas.backoff import backoff_seconds
from indexrelay.schemas.loggers import get_logger

log = get_logger(__name__)

Wait: TypeAlias = Callable[[float], bool]
"""Waits so many seconds at most; whether it is time to end. An event's ``wait`` is one."""

_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0


class SupervisedThread(threading.Thread):
    """Runs ``body`` until it returns; a daemon."""

    def __init__(self, body: Callable[[], None], *, name: str, wait: Wait | None) -> None:
        """Take what to run.

        Args:
            name: of the thread, for logs and debuggers.
            wait: between two attempts; ``None``: the body is not begun again, since it answers
                everyone who waits for it in a ``finally``.
        """
        super().__init__(name=name, daemon=True)
        self._body = body
        self._wait = wait

    def run(self) -> None:
        """The thread."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                self._body()
            except BaseException as error:
                ran_well = time.monotonic() - began > _LONGEST_PAUSE_SECONDS
                failures = 1 if ran_well else failures + 1
                pause = backoff_seconds(
                    failures,
                    first=_FIRST_PAUSE_SECONDS,
                    longest=_LONGEST_PAUSE_SECONDS,
                    key=self.name,
                )
                log.exception(
                    "thread.interrupted",
                    thread=self.name,
                    error=f"{type(error).__name__}: {error}",
                    again_in_seconds=None if self._wait is None else round(pause, 3),
                )
                if self._wait is None or self._wait(pause):
                    return
            else:
                return
