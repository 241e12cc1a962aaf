"""Renews a rebuilder's leases in time, whatever else it is doing.

A thread of its own, because everything else may be late: a look at the facts waits for the catalog,
a comparison for the store, a read for its events. On a busy machine with short leases that came to
more than a TTL, and another rebuilder built the same component beside this one.
"""

import threading
from collections.abc import Callable
from typing import Self

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.supervised_thread import SupervisedThread

_log = get_logger(__name__)


class LeaseKeeper:
    """Calls ``renew`` at a third of the leases' TTL, from `start` to `stop`."""

    def __init__(self, renew: Callable[[], None], *, ttl_seconds: float) -> None:
        self._renew = renew
        self._period_seconds = ttl_seconds / 3
        self._stopping = threading.Event()
        self._thread = SupervisedThread(
            self._keep, name="indexrelay-leases", wait=self._stopping.wait
        )
        self._started = False

    def start(self) -> None:
        """Start the thread; safe twice, and nothing once `stop` was called."""
        if not self._started and not self._stopping.is_set():
            self._started = True
            self._thread.start()

    def stop(self) -> None:
        """Return when nothing is renewed any more; safe twice and before `start`."""
        self._stopping.set()
        if self._started:
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _keep(self) -> None:
        while not self._stopping.wait(self._period_seconds):
            try:
                self._renew()
            except Exception as error:  # noqa: BLE001 - the next renewal may still be in time
                _log.warning("leases.not_renewed", error=f"{type(error).__name__}: {error}")
