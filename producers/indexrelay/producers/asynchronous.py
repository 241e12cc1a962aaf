"""The same producer for asyncio: catalog and Redis run on worker threads, waiting on the loop.

Database drivers and checks of large arrays block; each such call goes through `asyncio.to_thread`.
`wait_served` holds a thread only while it looks, not while it pauses. Cancelling ``batch()`` in its
block commits nothing; a commit that has begun on its thread ends there.
"""

import asyncio
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any, Self

from numpy.typing import ArrayLike

from indexrelay.producers.batch import Batch
from indexrelay.producers.producer import Producer
from indexrelay.producers.standing import Readers
from indexrelay.producers.waiting import ServedBy
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Commit


class AsyncBatch:
    """A `Batch` for one ``async with`` block; made by `AsyncProducer.batch`."""

    def __init__(
        self, producer: Producer, collection: str, batch_id: str | None, traceparent: str | None
    ) -> None:
        self._producer = producer
        self._arguments = (collection, batch_id, traceparent)
        self._opened: Batch | None = None

    async def upsert(
        self,
        ids: Sequence[str],
        vectors: ArrayLike,
        texts: Sequence[str | None] | None = None,
        payloads: Sequence[Any] | None = None,
    ) -> None:
        """As `Batch.upsert`."""
        await asyncio.to_thread(self._batch.upsert, ids, vectors, texts=texts, payloads=payloads)

    async def delete(self, ids: Sequence[str]) -> None:
        """As `Batch.delete`."""
        await asyncio.to_thread(self._batch.delete, ids)

    @property
    def commit(self) -> Commit:
        """As `Batch.commit`."""
        return self._batch.commit

    @property
    def announced(self) -> bool:
        """As `Batch.announced`."""
        return self._batch.announced

    async def __aenter__(self) -> Self:
        collection, batch_id, traceparent = self._arguments
        batch = await asyncio.to_thread(
            self._producer.batch, collection, batch_id, traceparent=traceparent
        )
        self._opened = batch.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._batch.__exit__, kind, error, trace)

    @property
    def _batch(self) -> Batch:
        if self._opened is None:
            raise RuntimeError("use the batch inside 'async with producer.batch(...) as batch:'")
        return self._opened


class AsyncProducer:
    """A `Producer` whose methods are awaited."""

    def __init__(self, producer: Producer) -> None:
        """Drive ``producer``, which this one closes."""
        self._producer = producer

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """As `Producer.open`."""
        return cls(await asyncio.to_thread(Producer.open, settings))

    def batch(
        self, collection: str, batch_id: str | None = None, *, traceparent: str | None = None
    ) -> AsyncBatch:
        """As `Producer.batch`; what that raises comes from ``async with``."""
        return AsyncBatch(self._producer, collection, batch_id, traceparent)

    async def batch_completed(
        self, collection: str, *, batch_id: str | None = None, traceparent: str | None = None
    ) -> Commit:
        """As `Producer.batch_completed`."""
        return await asyncio.to_thread(
            self._producer.batch_completed,
            collection,
            batch_id=batch_id,
            traceparent=traceparent,
        )

    async def request_rebuild(
        self, components: Collection[str] = (), *, force: bool = False, reason: str = ""
    ) -> str:
        """As `Producer.request_rebuild`."""
        return await asyncio.to_thread(
            self._producer.request_rebuild, components, force=force, reason=reason
        )

    async def wait_served(
        self,
        commit: Commit,
        *,
        timeout_seconds: float,
        readers: Readers = None,
        components: Collection[str] | None = None,
        fail_fast: bool = True,
    ) -> ServedBy:
        """As `Producer.wait_served`; safe to cancel."""
        waiting = self._producer.waiting(
            commit,
            timeout_seconds=timeout_seconds,
            readers=readers,
            components=components,
            fail_fast=fail_fast,
        )
        while (served := await asyncio.to_thread(waiting.look)) is None:
            await asyncio.sleep(waiting.pause_seconds())
        return served

    async def close(self) -> None:
        """As `Producer.close`."""
        await asyncio.to_thread(self._producer.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
