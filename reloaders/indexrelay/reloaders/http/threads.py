"""The threads that search: a few at a time, so that the event loop keeps its share of the time.

Python runs one thread at a time. Forty of them that parse and encode would each take their turn
before the event loop has its own again.
"""

from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread
from anyio import CapacityLimiter

from indexrelay.reloaders.http.connections import GuardedConnection
from indexrelay.reloaders.http.problems import OverloadedError
from indexrelay.schemas.settings import HttpSettings

T = TypeVar("T")


class SearchThreads:
    """Runs searches; for one event loop."""

    def __init__(self, settings: HttpSettings) -> None:
        self._limiter = CapacityLimiter(settings.searches)
        self._most = settings.searches + settings.max_waiting_searches
        self._inside = 0

    async def run(
        self,
        function: Callable[[str, bytes], T],
        name: str,
        body: bytes,
        *,
        connection: GuardedConnection | None,
    ) -> T:
        """What ``function`` returns, from a thread.

        Raises:
            OverloadedError: as many as may are waiting, or whoever asked has left.
            Exception: what it raises.
        """
        if self._inside >= self._most:
            raise OverloadedError(f"{self._most} searches to answer")

        def work() -> T:
            if connection is not None and connection.gone:
                raise OverloadedError("nobody to answer")
            return function(name, body)

        self._inside += 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._inside -= 1
