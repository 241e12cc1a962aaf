"""Stopping when asked: Ctrl-C and SIGTERM become a flag that a loop looks at.

The first signal asks to stop; whoever waits in `Stop.wait` wakes at once. A second Ctrl-C is not
special: stopping is bounded in time anyway, and cutting it short is what would leave things behind.
The flag travels through a pipe, since a signal may arrive while any lock is held.
"""

import os
import select
import signal
from types import FrameType, TracebackType
from typing import Self

from indexrelay.console.exits import ExitCode

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Takes SIGINT and SIGTERM for the length of a ``with`` block, on the main thread.

    A command that works rather than waits has it ``interrupt``: the first signal is then raised as
    `KeyboardInterrupt`, and later ones do not disturb the clearing up.
    """

    def __init__(self, *, interrupt: bool = False) -> None:
        self._interrupt = interrupt
        self._received: int | None = None
        self._before: dict[int, signal._HANDLER] = {}

    @property
    def asked(self) -> bool:
        """Whether a signal arrived."""
        return self._received is not None

    @property
    def exit_code(self) -> ExitCode:
        """What a command that was cut short exits with."""
        return ExitCode.TERMINATED if self._received == signal.SIGTERM else ExitCode.INTERRUPTED

    @property
    def role_exit_code(self) -> ExitCode:
        """What a command exits with that runs until it is told to stop: SIGTERM is its end."""
        return ExitCode.SUCCESS if self._received == signal.SIGTERM else ExitCode.INTERRUPTED

    def wait(self, seconds: float) -> bool:
        """Wait until asked to stop, at most that long; says whether it was."""
        if not self.asked:
            select.select([self._reading], [], [], seconds)
        return self.asked

    def __enter__(self) -> Self:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._before = {number: signal.signal(number, self._take) for number in _SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        os.close(self._reading)
        os.close(self._writing)

    def _take(self, number: int, _: FrameType | None) -> None:
        if self._received is None:
            self._received = number
            os.write(self._writing, b"\0")
            if self._interrupt:
                raise KeyboardInterrupt
