"""The same producer for asyncio: catalog and Redis run on worker threads, waiting on the loop.

Database drivers and checks of large arrays block; each such call goes through `asyncio.to_thread`.
`wait_served` holds a thread only while it looks, not while it pauses. Cancelling ``batch()`` in its
block commits nothing; a commit that has begun on its thread ends there.

A thread cannot be cancelled. So the calls of one batch take turns: those awaited together, and one
that goes on after its await was cancelled. Whether a cancelled change is in the batch is unknown,
so such a batch is not committed, even if the block goes on.
"""

import asyncio
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self

from numpy.typing import ArrayLike

from indexrelay.producers.batch import Batch, Batches
from indexrelay.producers.errors import NotCommittedError
from indexrelay.producers.producer import Producer
from indexrelay.producers.served import Readers, ServedBy
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Commit

if TYPE_CHECKING:
    from indexrelay.schemas.session import SessionToken

GivenP = ParamSpec("GivenP")


class AsyncBatch:
    """A `Batch` for one ``async with`` block; made by `AsyncProducer.batch`."""

    def __init__(self, opens: Callable[[], Batch]) -> None:
        self._opens = opens
        self._opened: Batch | None = None
        self._turn = threading.Lock()
        self._cancelled = False

    async def upsert(
        self,
        ids: Sequence[str],
        vectors: ArrayLike | None = None,
        texts: Sequence[str | None] | None = None,
        payloads: Sequence[Any] | None = None,
    ) -> None:
        """As `Batch.upsert`."""
        await self._change(self._batch.upsert, ids, vectors, texts=texts, payloads=payloads)

    async def set_texts(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        """As `Batch.set_texts`."""
        await self._change(self._batch.set_texts, ids, texts)

    async def set_payloads(self, ids: Sequence[str], payloads: Sequence[Any]) -> None:
        """As `Batch.set_payloads`."""
        await self._change(self._batch.set_payloads, ids, payloads)

    async def clear_texts(self, ids: Collection[str]) -> None:
        """As `Batch.clear_texts`."""
        await self._change(self._batch.clear_texts, ids)

    async def clear_payloads(self, ids: Collection[str]) -> None:
        """As `Batch.clear_payloads`."""
        await self._change(self._batch.clear_payloads, ids)

    async def delete(self, ids: Collection[str]) -> None:
        """As `Batch.delete`."""
        await self._change(self._batch.delete, ids)

    @property
    def commit(self) -> Commit:
        """As `Batch.commit`."""
        return self._batch.commit

    @property
    def session(self) -> "SessionToken":
        """As `Batch.session`."""
        return self._batch.session

    @property
    def announced(self) -> bool:
        """As `Batch.announced`."""
        return self._batch.announced

    async def __aenter__(self) -> Self:
        batch = await asyncio.to_thread(self._opens)
        self._opened = batch.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        given_up: NotCommittedError | None = None
        if error is None and self._cancelled:
            given_up = NotCommittedError(
                self._batch.collection, "a change was cancelled; use another batch"
            )
            kind, error = NotCommittedError, given_up
        await asyncio.to_thread(self._in_turn, self._batch.__exit__, kind, error, trace)
        if given_up is not None:
            raise given_up

    async def _change(
        self, call: Callable[GivenP, None], /, *args: GivenP.args, **given: GivenP.kwargs
    ) -> None:
        try:
            await asyncio.to_thread(self._in_turn, call, *args, **given)
        except asyncio.CancelledError:
            self._cancelled = True
            raise

    def _in_turn(
        self, call: Callable[GivenP, None], /, *args: GivenP.args, **given: GivenP.kwargs
    ) -> None:
        """On a worker thread: one call at a time."""
        with self._turn:
            call(*args, **given)

    @property
    def _batch(self) -> Batch:
        if self._opened is None:
            raise RuntimeError("use the batch inside 'async with producer.batch(...) as batch:'")
        return self._opened


class AsyncBatches:
    """`Batches` for one ``async with`` block; made by `AsyncProducer.batches`."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def batch(
        self, collection: str, batch_id: str | None = None, *, traceparent: str | None = None
    ) -> AsyncBatch:
        """As `Batches.batch`; several may be open at the same time, in tasks of their own."""
        return AsyncBatch(
            partial(self._batches.batch, collection, batch_id, traceparent=traceparent)
        )

    async def batch_completed(
        self, collection: str, *, batch_id: str | None = None, traceparent: str | None = None
    ) -> None:
        """As `Batches.batch_completed`."""
        await asyncio.to_thread(
            self._batches.batch_completed, collection, batch_id=batch_id, traceparent=traceparent
        )

    @property
    def commits(self) -> tuple[Commit, ...]:
        """As `Batches.commits`."""
        return self._batches.commits

    @property
    def session(self) -> "SessionToken":
        """As `Batches.session`."""
        return self._batches.session

    @property
    def announced(self) -> bool:
        """As `Batches.announced`."""
        return self._batches.announced

    def __len__(self) -> int:
        return len(self._batches)

    def __bool__(self) -> bool:
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._batches.__exit__, kind, error, trace)


class AsyncProducer:
    """A `Producer` whose methods are awaited."""

    def __init__(self, producer: Producer) -> None:
        """Drive ``producer``, which this one closes."""
        self._producer = producer

    @classmethod
    async def open(cls, settings: Settings | str | Path | None = None) -> Self:
        """As `Producer.open`."""
        return cls(await asyncio.to_thread(Producer.open, settings))

    def batch(
        self, collection: str, batch_id: str | None = None, *, traceparent: str | None = None
    ) -> AsyncBatch:
        """As `Producer.batch`; what that raises comes from ``async with``."""
        return AsyncBatch(
            partial(self._producer.batch, collection, batch_id, traceparent=traceparent)
        )

    def batches(self) -> AsyncBatches:
        """As `Producer.batches`."""
        return AsyncBatches(self._producer.batches())

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
        self,
        components: Collection[str] = (),
        *,
        force: bool = False,
        full: bool = False,
        reason: str = "",
    ) -> str:
        """As `Producer.request_rebuild`."""
        return await asyncio.to_thread(
            self._producer.request_rebuild, components, force=force, full=full, reason=reason
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
        waiting = self._producer.served_wait(
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
