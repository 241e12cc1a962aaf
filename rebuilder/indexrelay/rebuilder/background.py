"""What a rebuilder does beside its loop, since it may take long: look for keys, judge everything.

Whoever may write one key may write millions, and a look for keys goes through all of them. Each
look has an end, but a comparison makes several, and events would wait for all of them.
"""

import threading
from collections.abc import Callable

from indexrelay.schemas.clock import SupervisedThread


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
