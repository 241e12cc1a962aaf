"""Whether the event loop of a service that stands on a reader still turns.

A reader loads and reports on a thread of its own, which goes on whatever the event loop beside it
does. So presence alone says nothing about who answers: a loop that hangs in a lock, a file or an
endless function answers no request, not even a probe of its readiness. A service therefore beats
once a second from its loop, and the reading thread looks when it did so last.
"""

import asyncio
import contextlib
import sys
import threading
import traceback
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

from indexrelay.schemas.clock import Clock

BEAT_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 10.0
"""A loop that has not turned for so long hangs: clients and probes have given up by then."""
_FRAMES: Final = 6
"""How much of where it hangs is told: the innermost calls."""


class Heartbeat:
    """When one event loop turned last; made on its thread, beaten there, and read from any."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._thread = threading.get_ident()
        self._last = (clock.monotonic(), clock.now())

    def beat(self) -> None:
        """The loop turns."""
        self._last = (self._clock.monotonic(), self._clock.now())

    @property
    def silent_since(self) -> datetime | None:
        """When it turned last, if that is `SILENT_SECONDS` ago or more; ``None``: it turns."""
        monotonic, at = self._last
        return at if self._clock.monotonic() - monotonic >= SILENT_SECONDS else None

    @property
    def where(self) -> str:
        """The innermost calls of the loop's thread, the innermost last; empty: it has ended."""
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - documented for this purpose
        calls = [] if frame is None else traceback.extract_stack(frame)[-_FRAMES:]
        return "; ".join(f"{each.filename}:{each.lineno} in {each.name}" for each in calls)

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Beat while the body runs."""
        task = asyncio.create_task(self._beat(), name="indexrelay-heartbeat")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _beat(self) -> None:
        while True:
            self.beat()
            await asyncio.sleep(BEAT_SECONDS)
