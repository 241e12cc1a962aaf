"""The awaitable producer does what the other one does."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexrelay.producers import AsyncProducer, NotServedError, Producer
from indexrelay.producers.errors import (
    NotCommittedError,
    UndeclaredCollectionError,
)
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection
from tests.producers.presence import HandClock, Readers, reader


def test_a_batch_is_committed_and_waited_for(
    settings: Settings, catalog: Catalog, connection: Connection
) -> None:
    async def job() -> None:
        async with AsyncProducer(
            Producer(settings, catalog=catalog, connection=connection)
        ) as producer:
            async with producer.batch("tracks") as batch:
                await batch.upsert(["a"], np.ones((1, 3), np.float32))
                await batch.delete(["b"])
            assert batch.announced
            assert batch.session == batch.commit.session
            with pytest.raises(NotServedError):
                await producer.wait_served(batch.commit, timeout_seconds=0)
            waiting = asyncio.create_task(producer.wait_served(batch.commit, timeout_seconds=30))
            await asyncio.sleep(0)
            Readers(connection, catalog).say(
                reader("one", {"voyager": 1}, epoch=batch.commit.epoch)
            )
            assert (await waiting).readers == ("one",)
            assert await producer.request_rebuild(["map"])
            assert (await producer.batch_completed("files")).generation == 1

    asyncio.run(job())


def test_an_exception_in_the_block_commits_nothing(settings: Settings, clock: HandClock) -> None:
    async def job() -> int:
        async with await AsyncProducer.open(settings) as producer:
            with pytest.raises(UndeclaredCollectionError):
                async with producer.batch("trakcs"):
                    pass
            with pytest.raises(KeyError):  # noqa: PT012 - the whole block is meant
                async with producer.batch("tracks") as batch:
                    await batch.upsert(["a"], np.ones((1, 3), np.float32))
                    raise KeyError
            with pytest.raises(NotCommittedError):
                _ = batch.commit
            return producer._producer._catalog.collections.get("tracks").generation

    assert asyncio.run(job()) == 0


def test_a_batch_needs_its_block(settings: Settings, tmp_path: Path) -> None:
    async def job() -> None:
        async with await AsyncProducer.open(settings) as producer:
            with pytest.raises(RuntimeError, match="async with"):
                await producer.batch("tracks").upsert(["a"], np.ones((1, 3), np.float32))

    asyncio.run(job())


def test_changes_that_are_awaited_together_take_turns(settings: Settings) -> None:
    """Of two that name the same id one must see what the other did."""

    async def job() -> list[int]:
        together, met = threading.Barrier(2), []
        async with (
            await AsyncProducer.open(settings) as producer,
            producer.batch("tracks") as batch,
        ):
            check_open = batch._batch._check_open

            def meet() -> None:
                # It passes when both are in at once; one alone waits in vain and goes on.
                with contextlib.suppress(threading.BrokenBarrierError):
                    met.append(together.wait(0.2))
                check_open()

            batch._batch._check_open = meet  # type: ignore[method-assign] # where they meet
            ones = np.ones((1, 3), np.float32)
            await asyncio.gather(batch.upsert(["a"], ones), batch.upsert(["a"], ones))
            batch._batch._check_open = check_open  # type: ignore[method-assign] # as it was
        return met

    assert asyncio.run(job()) == []


def test_texts_and_payloads_are_set_and_cleared_alone(settings: Settings) -> None:
    async def job() -> list[tuple[str | None, str | None]]:
        ones = np.ones((2, 3), np.float32)
        async with await AsyncProducer.open(settings) as producer:
            async with producer.batch("tracks") as batch:
                await batch.upsert(["a", "b"], ones, ["x", "y"], [1, 2])
            async with producer.batch("tracks") as batch:
                await batch.set_texts(["a"], ["z"])
                await batch.set_payloads(["b"], [3])
                await batch.clear_texts(["b"])
                await batch.clear_payloads(["a"])
            with producer._producer._catalog.entries.snapshot("tracks") as snapshot:
                (chunk,) = snapshot.chunks()
                return list(zip(chunk.texts, chunk.payloads, strict=True))

    assert asyncio.run(job()) == [("z", None), (None, "3")]


def test_a_batch_whose_change_was_cancelled_is_not_committed(settings: Settings) -> None:
    """Its thread goes on, and nobody knows how far it came."""
    entered, go_on = threading.Event(), threading.Event()

    class SlowIds(list[str]):
        def __iter__(self) -> Iterator[str]:
            entered.set()
            assert go_on.wait(20)
            return super().__iter__()

    async def job() -> int:
        async with await AsyncProducer.open(settings) as producer:
            with pytest.raises(NotCommittedError, match="was cancelled"):  # noqa: PT012 - as above
                async with producer.batch("tracks") as batch:
                    ones = np.ones((1, 3), np.float32)
                    change = asyncio.create_task(batch.upsert(SlowIds(["a"]), ones))
                    await asyncio.to_thread(entered.wait, 20)
                    change.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await change
                    asyncio.get_running_loop().call_soon(go_on.set)
            with pytest.raises(NotCommittedError):
                _ = batch.commit
            return producer._producer._catalog.collections.get("tracks").generation

    assert asyncio.run(job()) == 0
