"""Waits of a write beyond its commit: until readers have it in their answers, or serve a release.

They end in time whatever becomes of them, and say why; the write stands in any case. Nobody who
waits has a thread, but for a look at presence.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from indexrelay.components.live import LIVE_KINDS
from indexrelay.producers import Commit, NotServedError
from indexrelay.reloaders import Reloader
from indexrelay.reloaders.consistency import Consistency
from indexrelay.reloaders.errors import (
    ComponentNotServedError,
    NotFreshError,
    ReloaderStoppedError,
)
from indexrelay.schemas.loggers import get_logger
from indexrelay.service.bodies import WriteOptions
from indexrelay.service.consistency import settled_within
from indexrelay.service.limits import FewThreads
from indexrelay.service.problems import OverloadedError

if TYPE_CHECKING:
    from indexrelay.service.writer import EntryWriter

log = get_logger(__name__)

_LOOKERS: Final = 2
"""Threads that look at presence; where Redis does not answer each look takes seconds."""
_LATE_SECONDS: Final = 1.0
"""How much later than it was asked for a wait may end, so that the last look can say why."""


class CommitWaits:
    """Waits until a commit is visible or released; for one event loop."""

    def __init__(self, writer: "EntryWriter", reloader: Reloader) -> None:
        self._writer = writer
        self._reloader = reloader
        self._most = writer.max_waiting
        self._waiting = 0
        self._lookers = FewThreads(_LOOKERS, "others to look for")

    async def until(self, commit: Commit, asked: WriteOptions) -> str | None:
        """Wait for what was asked for; why it did not come, or ``None``: it did."""
        what, _, count = asked.wait.partition(":")
        if what == "durable":
            return None
        if self._waiting >= self._most:
            return f"{self._most} writes wait already"
        self._waiting += 1
        try:
            if count == "1":
                return await self._seen_here(commit, asked.wait_seconds)
            readers = int(count) if count else None
            return await self._served(commit, readers, asked.wait_seconds)
        finally:
            self._waiting -= 1

    async def _seen_here(self, commit: Commit, seconds: float) -> str | None:
        """Wait for the answers of this reader."""
        asked = Consistency.session(commit.session)
        try:
            components = self._answering(commit.collection)
            if not components:
                return "this reader serves nothing of it"
            with self._reloader.freshness.begin(asked, components=components) as wait:
                await settled_within(wait, seconds)
        except (NotFreshError, ReloaderStoppedError, ComponentNotServedError) as error:
            return str(error)
        return None

    def _answering(self, collection: str) -> list[str]:
        """The components that show it: those that take changes, or, where none does, all."""
        with self._reloader.acquire() as snapshot:
            kinds = {
                name: snapshot.manifest(name).kind
                for name in snapshot
                if collection in snapshot.manifest(name).covers
            }
        live = [name for name, kind in kinds.items() if kind in LIVE_KINDS]
        return live or list(kinds)

    async def _served(self, commit: Commit, readers: int | None, seconds: float) -> str | None:
        """Wait for what readers say of themselves; ``readers``: how many, ``None``: all.

        So many may have it laid over their releases; all have to serve a release with it.
        """
        waiting = self._writer.open().producer.served_wait(
            commit, timeout_seconds=seconds, readers=readers, live=readers is not None
        )
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds + _LATE_SECONDS
        try:
            while await self._lookers.run(waiting.look, seconds=ends - loop.time()) is None:
                await asyncio.sleep(waiting.pause_seconds())
        except NotServedError as error:
            return str(error)
        except OverloadedError:
            return "who serves it was not seen in time: looks at presence take long"
        except Exception as error:  # the commit stands, whatever keeps us from looking
            log.exception("write.wait_failed", error=type(error).__name__)
            return f"who serves it cannot be seen: {type(error).__name__}"
        return None
