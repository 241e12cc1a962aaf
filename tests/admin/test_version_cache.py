"""Looks into versions: bounded in time and number, and never a hindrance to the next one."""

import asyncio
import threading

import pytest

from indexrelay.admin.version_cache import LookThreads
from indexrelay.service.problems import OverloadedError, RefusedError


def test_a_look_that_takes_too_long_is_refused_and_runs_to_its_end() -> None:
    go_on, ended = threading.Event(), threading.Event()

    def slow() -> None:
        go_on.wait(10)
        ended.set()

    async def ask() -> None:
        threads = LookThreads("looks to make", answer_seconds=0)
        with pytest.raises(RefusedError, match="no answer after 0 s") as refused:
            await threads.run(slow)
        assert refused.value.status == 503
        go_on.set()
        await asyncio.to_thread(ended.wait, 10)
        assert ended.is_set()

    asyncio.run(ask())


def test_where_all_threads_are_taken_the_next_look_is_refused_until_one_is_free() -> None:
    begun, go_on = threading.Barrier(3, timeout=10), threading.Event()

    def slow() -> str:
        begun.wait()
        go_on.wait(10)
        return "found"

    async def ask() -> None:
        threads = LookThreads("looks to make", wait_seconds=0)
        running = [asyncio.ensure_future(threads.run(slow)) for _ in range(2)]
        await asyncio.to_thread(begun.wait)
        with pytest.raises(OverloadedError, match="looks to make"):
            await threads.run(lambda: "one more")
        go_on.set()
        assert await asyncio.gather(*running) == ["found", "found"]

    asyncio.run(ask())
