"""FastStream publishes and consumes, as its documentation introduces Redis Streams.

Runs in the peers' environment: ``faststream_events.py URL``. Questions are ``do`` (``publish`` or
``consume``) and ``count``. One event loop and one broker live as long as the program.
"""

import asyncio
import logging
import sys
import time
from typing import Any

from faststream.redis import RedisBroker, StreamSub
from pydantic import BaseModel
from redis.asyncio import Redis

from measuring.companion_side import answering

PUBLISHED = "faststream:published"
CONSUMED = "faststream:consumed"
GROUP = "consumers"


class BatchCompleted(BaseModel):
    """The same fields as ours has."""

    collection: str
    epoch: str
    batch_id: str
    generation: int
    upserts: int = 0
    deletes: int = 0


def message(number: int) -> BatchCompleted:
    return BatchCompleted(
        collection="tracks", epoch="5f3a", batch_id=f"b{number}", generation=number, upserts=1000
    )


async def publish(url: str, count: int) -> float:
    messages = [message(number) for number in range(1, count + 1)]
    async with Redis.from_url(url) as client, RedisBroker(url, logger=None) as broker:
        await client.delete(PUBLISHED)
        began = time.perf_counter()
        for each in messages:
            await broker.publish(each, stream=PUBLISHED)
        seconds = time.perf_counter() - began
        if await client.xlen(PUBLISHED) != count:
            raise RuntimeError("not everything was published")
    return seconds


async def consume(url: str, count: int) -> float:
    """From the start of the subscriber until every message is acknowledged."""
    async with Redis.from_url(url) as client:
        await client.delete(CONSUMED)
        async with RedisBroker(url, logger=None) as filling:
            for number in range(1, count + 1):
                await filling.publish(message(number), stream=CONSUMED)
        await client.xgroup_create(CONSUMED, GROUP, id="0")
        broker = RedisBroker(url, logger=None)
        handled = asyncio.Semaphore(0)

        @broker.subscriber(stream=StreamSub(CONSUMED, group=GROUP, consumer="one"))  # type: ignore[untyped-decorator] # not installed beside us
        async def handle(event: BatchCompleted) -> None:  # noqa: ARG001 - it is to be validated
            handled.release()

        began = time.perf_counter()
        await broker.start()
        for _ in range(count):
            await handled.acquire()
        while (await client.xpending(CONSUMED, GROUP))["pending"]:
            await asyncio.sleep(0)
        seconds = time.perf_counter() - began
        await broker.stop()
        left = asyncio.all_tasks() - {asyncio.current_task()}  # readers that it cancelled
        await asyncio.gather(*left, return_exceptions=True)
    return seconds


def main() -> None:
    logging.disable(logging.WARNING)
    url = sys.argv[1]
    loop = asyncio.new_event_loop()

    def answer(do: str, count: int) -> dict[str, Any]:
        work = {"publish": publish, "consume": consume}[do]
        return {"seconds": loop.run_until_complete(work(url, count))}

    answering(answer)
    loop.close()


if __name__ == "__main__":
    main()
