"""Another application in the place of one that answers: no request fails, and no connection ends.

A reader that reads its settings again makes everything a second time by them: a reloader, which
loads what is released, and the application on it. Once that serves all that the former one serves,
it gets the next request. The former one ends when its last request has been answered. Files are
mapped, so that the pages of an index that both have open are in memory once.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Protocol

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from indexrelay.reloaders import Reloader
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.settings import Settings

READY_SECONDS: Final = 120.0
"""How long the new application may take to serve what the former one serves."""
_LOOK_SECONDS: Final = 0.05
_LAST_REQUESTS_SECONDS: Final = 30.0
"""How long the former application is kept for the requests that it has begun."""


class NotReplacedError(IndexRelayError):
    """Raised when a reader by other settings does not serve in time what it serves now."""

    def __init__(self, missing: set[str]) -> None:
        super().__init__(
            f"by these settings it did not serve {', '.join(sorted(missing))} within "
            f"{READY_SECONDS:g} s, and it serves that now; its log says what failed"
        )
        self.missing = missing


class SettingsSource(Protocol):
    """Who reads the settings again when the process is asked to; called by one thread at a time."""

    @property
    def asked(self) -> bool:
        """Whether it was asked to, and has not looked since."""
        ...

    @property
    def refused(self) -> str | None:
        """Why the last settings are refused; ``None``: they are not."""
        ...

    def look(self) -> Settings | None:
        """Other settings to go on with, if there are some that are right."""
        ...

    def take(self, new: Settings) -> None:
        """The process goes on with these."""
        ...

    def refuse(self, error: BaseException) -> None:
        """The process cannot go on with them, and goes on with what it had."""
        ...


class Served:
    """One application and its reloader, from its start to its end; for one event loop."""

    def __init__(self, app: FastAPI, reloader: Reloader) -> None:
        """Nothing is started yet."""
        self.app = app
        self.reloader = reloader
        self._requests = 0
        self._ending = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, on a task of its own: what that has started has to be ended by the same one.

        Raises:
            Exception: what its start raises; it has ended then.
        """
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(started))
        await started

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        self._requests += 1
        self._idle.clear()
        try:
            await self.app(scope, receive, send)
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    async def end(self, *, requests_seconds: float = 0.0) -> None:
        """End it once its requests have been answered, or after so many seconds; safe twice."""
        if requests_seconds:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), requests_seconds)
        self._ending.set()
        if self._task is not None:
            await self._task

    def missing_from(self, other: Reloader) -> set[str]:
        """The components that it serves, and that another reader is to serve and does not yet."""
        wanted = other.settings.reader.components
        served = _served_by(self.reloader)
        return (served if wanted is None else served & set(wanted)) - _served_by(other)

    async def _run(self, started: asyncio.Future[None]) -> None:
        try:
            async with self.app.router.lifespan_context(self.app):
                if not started.done():  # whoever waited for it may have been cancelled
                    started.set_result(None)
                await self._ending.wait()
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)


class ReplaceableApp:
    """An ASGI application that hands each request to the one that answers now."""

    def __init__(
        self,
        served: Served,
        *,
        make: Callable[[Settings], Served],
        switched: Callable[[Settings], None],
    ) -> None:
        """Take the first one.

        Args:
            make: makes one by other settings; called on a thread.
            switched: called once the one by these settings answers.
        """
        self.served = served
        """The one that answers now."""
        self._make = make
        self._switched = switched
        self._renewing: asyncio.Task[None] | None = None
        self.renews = False
        """Whether another one is being started."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or start and stop."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self.served.answer(scope, receive, send)

    def look(self, source: SettingsSource) -> None:
        """Begin to go on with other settings, if there are some; on the event loop."""
        self.served.reloader.settings_refused = source.refused
        if source.asked and (self._renewing is None or self._renewing.done()):
            self._renewing = asyncio.create_task(self._renew(source))

    async def _renew(self, source: SettingsSource) -> None:
        new = await asyncio.to_thread(source.look)
        if new is None:
            return
        former, self.renews = self.served, True
        try:
            await self.replace(await asyncio.to_thread(self._make, new))
        except Exception as error:  # noqa: BLE001 - whatever these settings lead to, it goes on
            source.refuse(error)
            return
        finally:
            self.renews = False
        self._switched(new)
        source.take(new)
        try:
            await former.end(requests_seconds=_LAST_REQUESTS_SECONDS)
        finally:  # also where the process stops meanwhile
            await former.end()

    async def replace(self, following: Served) -> None:
        """Start another application, and have it answer once it serves all that this one does.

        Raises:
            NotReplacedError: it does not in time; this one goes on.
            Exception: what its start raises.
        """
        former = self.served
        try:
            await following.start()
            try:
                async with asyncio.timeout(READY_SECONDS):
                    while former.missing_from(following.reloader):
                        await asyncio.sleep(_LOOK_SECONDS)
            except TimeoutError:
                raise NotReplacedError(former.missing_from(following.reloader)) from None
        except BaseException:
            await following.end()
            raise
        self.served = following

    async def _live(self, receive: Receive, send: Send) -> None:
        """The lifespan, as ASGI has it: the server says when it begins and ends."""
        await receive()
        try:
            await self.served.start()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        await self.served.end()
        await send({"type": "lifespan.shutdown.complete"})


def _served_by(reloader: Reloader) -> set[str]:
    return {name for name, each in reloader.state.components.items() if each.version is not None}
