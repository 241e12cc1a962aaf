"""A reloader in a FastAPI application: started and stopped with it, and borrowed from per request.

    app = FastAPI(lifespan=reloader_lifespan(reloader))

    @app.get("/similar/{song}")
    def similar(song: str, snapshot: Annotated[Snapshot, Depends(borrowing(reloader))]):
        return snapshot["voyager"].search_by_id(song, k=10)

What a snapshot raises becomes an answer: 503 with ``Retry-After`` until the first load, 404 for an
unknown id or component, 422 for a query that cannot be answered. A search belongs on a thread:
write such routes with ``def``, and FastAPI runs them on one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from indexrelay.schemas.errors import missing_extra

try:
    from fastapi import HTTPException
except ModuleNotFoundError as error:
    raise missing_extra(error) from error

from indexrelay.reloaders.errors import HTTP_ERRORS, http_error
from indexrelay.reloaders.reloader import Reloader
from indexrelay.reloaders.snapshot import Snapshot

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


def reloader_lifespan(reloader: Reloader, *, wait_ready_seconds: float = 30.0) -> Lifespan:
    """A lifespan for a FastAPI or Starlette application that starts and stops ``reloader``.

    While the application's event loop stands still, its presence says that the reader is not ready.

    Args:
        reloader: the one to start.
        wait_ready_seconds: hold requests back so long, at most, for the reader to become ready; 0:
            serve at once, and let a readiness probe decide who is sent here.
    """

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        reloader.start()
        try:
            if wait_ready_seconds > 0:
                await asyncio.to_thread(reloader.wait_ready, wait_ready_seconds)
            async with reloader.watching_loop():
                yield
        finally:
            # It waits for a blocking read; the event loop has other requests to finish.
            await asyncio.to_thread(reloader.stop)

    return lifespan


def borrowing(reloader: Reloader) -> Callable[[], Iterator[Snapshot]]:
    """A dependency that lends a snapshot to one request and turns its errors into answers."""

    def borrowed() -> Iterator[Snapshot]:
        try:
            with reloader.acquire() as snapshot:
                yield snapshot
        except HTTP_ERRORS as error:
            found = http_error(error, ready=reloader.ready)
            raise HTTPException(found.status, found.detail, found.headers) from error

    return borrowed
