"""Who gets a thread next, and how long somebody may keep one."""

import asyncio
import functools
import gc
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest

from indexrelay.reloaders import Reloader
from indexrelay.schemas.settings import HttpSettings
from indexrelay.service import queries
from indexrelay.service.limits import MORE, FewThreads, More, OwnThreads, SearchThreads
from indexrelay.service.problems import OverloadedError
from indexrelay.service.tokens import digest_of
from tests.reloaders.bench import Bench
from tests.service.conftest import KINDS, served
from tests.service.search_kinds import ServedSongs


class Searches:
    """Searches on one thread, or some, whose first one waits until the others have come."""

    def __init__(self, **settings: Any) -> None:
        self.threads = SearchThreads(HttpSettings.model_validate({"searches": 1, **settings}))
        self.ran: list[str] = []
        self.go = threading.Event()

    def search(self, name: str, *, turns: int = 1) -> Callable[[], str | More]:
        def once() -> str | More:
            self.go.wait()
            self.ran.append(name)
            return name if self.ran.count(name) == turns else MORE

        return once

    def begin(self, caller: str | None, *names: str, turns: int = 1) -> list[asyncio.Task[str]]:
        return [
            asyncio.create_task(
                self.threads.run(self.search(name, turns=turns), connection=None, caller=caller)
            )
            for name in names
        ]

    async def end(self) -> None:
        """Let everything run, once all of it has come."""
        for _ in range(5):
            await asyncio.sleep(0)
        self.go.set()
        while len(self.threads):
            await asyncio.sleep(0)


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(body())  # type: ignore[arg-type] # a coroutine is what these tests give


def test_those_of_one_caller_run_in_the_order_in_which_they_came() -> None:
    async def body() -> None:
        searches = Searches()
        searches.begin(None, "a", "b", "c", "d")
        await searches.end()
        assert searches.ran == ["a", "b", "c", "d"]
        assert not searches.threads.others_wait

    run(body)


def test_whoever_asks_once_runs_before_the_rest_of_whoever_asks_much() -> None:
    async def body() -> None:
        searches = Searches()
        searches.begin("shop", "first", *(f"shop {n}" for n in range(5)))
        searches.begin("bank", "bank 0", "bank 1")
        searches.begin("club", "club 0")
        await searches.end()
        assert searches.ran[:5] == ["first", "shop 0", "bank 0", "club 0", "shop 1"]
        assert searches.ran[5:] == ["bank 1", "shop 2", "shop 3", "shop 4"]

    run(body)


def test_a_long_one_gives_its_thread_to_those_that_wait_and_goes_on_after_them() -> None:
    async def body() -> None:
        searches = Searches()
        [long] = searches.begin(None, "long", turns=3)
        await asyncio.sleep(0)
        searches.begin(None, "one", "two")
        await searches.end()
        assert searches.ran == ["long", "one", "two", "long", "long"]
        assert long.result() == "long"

    run(body)


def test_one_token_of_several_leaves_half_of_the_places_to_the_others() -> None:
    tokens = {name: {"sha256": digest_of(name)} for name in ("shop", "bank")}
    for given, most in ((tokens, 5), ({"shop": tokens["shop"]}, 10), ({}, 10)):

        async def body(given: Any = given, most: int = most) -> None:
            searches = Searches(max_waiting_searches=9, tokens=given)
            searches.begin("shop", *map(str, range(most)))
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError):
                await searches.threads.run(lambda: None, connection=None, caller="shop")
            others = searches.begin("bank", "bank") if len(given) > 1 else []
            await searches.end()
            assert [each.result() for each in others] == ["bank"] * len(others)
            assert len(searches.ran) == most + len(others)

        run(body)


def test_one_that_is_given_up_while_it_waits_takes_no_thread_with_it() -> None:
    async def body() -> None:
        searches = Searches()
        searches.begin(None, "a")
        waiting, next_one = searches.begin(None, "given up", "b")
        await asyncio.sleep(0)
        waiting.cancel()
        await searches.end()
        assert searches.ran == ["a", "b"]
        assert next_one.result() == "b"
        searches.begin(None, "c")
        await searches.end()
        assert searches.ran == ["a", "b", "c"]

    run(body)


def test_one_whose_client_has_left_does_not_go_on() -> None:
    async def body() -> None:
        searches = Searches()
        connection = SimpleNamespace(gone=False)

        def turn() -> More:
            searches.ran.append("turn")
            connection.gone = True
            return MORE

        given: Any = connection
        with pytest.raises(OverloadedError, match="no client"):
            await searches.threads.run(turn, connection=given)
        assert searches.ran == ["turn"]
        assert len(searches.threads) == 0

    run(body)


def test_a_search_runs_between_those_of_a_batch_which_keeps_its_version(
    bench: Bench, reader: Reloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread; the first search of the batch ends when the other request waits for it."""
    waits, ran = threading.Event(), list[str]()

    class Watched(SearchThreads):
        async def _take(self, caller: str | None) -> None:
            if not self._free:
                waits.set()
            await super()._take(caller)

    answer: Any = ServedSongs.search
    began = threading.Event()

    @functools.wraps(answer)
    def search(self: ServedSongs, *given: Any, text: str, **options: Any) -> Any:
        began.set()
        assert waits.wait(30)
        ran.append(text)
        if text == "alone":
            bench.publish_texts({"songs": "calm 0 0 rock\n"}, kind=KINDS["songs"])
            reader.step()
        return answer(self, *given, text=text, **options)

    monkeypatch.setattr(ServedSongs, "search", search)
    monkeypatch.setattr(queries, "SearchThreads", Watched)
    monkeypatch.setattr(queries, "_TURN_SECONDS", 0.0)
    with served(bench, reader, HttpSettings(searches=1)) as client:
        path = "/v1/components/songs/search"
        batch: list[Any] = []
        body = {"queries": [{"text": text} for text in ("one", "two", "three")]}
        asking = threading.Thread(
            target=lambda: batch.append(client.post(f"{path}/batch", json=body))
        )
        asking.start()
        assert began.wait(30)
        alone = client.post(path, json={"text": "alone"})
        asking.join()
    assert ran == ["one", "alone", "two", "three"]
    versions = [each["version"] for each in batch[0].json()["answers"]]
    assert versions == [alone.json()["version"]] * 3


def test_a_call_that_waits_behind_a_long_one_gets_another_thread() -> None:
    async def body() -> None:
        threads, go = OwnThreads(2, "calls"), threading.Event()
        long = asyncio.create_task(threads.run(lambda: go.wait(60)))
        await asyncio.sleep(0)
        await threads.run(go.set)
        assert await long

    run(body)


def test_what_has_ended_is_told_although_its_thread_goes_on_with_a_long_call() -> None:
    async def body() -> None:
        threads, go, began = OwnThreads(1, "calls"), threading.Event(), threading.Event()
        first = asyncio.create_task(threads.run(lambda: began.wait(60)))
        long = asyncio.create_task(threads.run(lambda: go.wait(60)))
        await asyncio.sleep(0)  # both are in the queue
        began.set()
        assert await asyncio.wait_for(first, 60)
        assert not long.done()
        go.set()
        assert await long

    run(body)


def test_calls_return_what_they_give_and_raise_what_they_raise_in_their_own_context() -> None:
    variable: ContextVar[int] = ContextVar("number")

    async def body() -> None:
        threads = OwnThreads(3, "calls")

        def call() -> int:
            if variable.get() % 10 == 7:
                raise LookupError(variable.get())
            return variable.get()

        async def asked(number: int) -> int:
            variable.set(number)
            return await threads.run(call)

        found = await asyncio.gather(*map(asked, range(200)), return_exceptions=True)
        for number, each in enumerate(found):
            if number % 10 == 7:
                assert isinstance(each, LookupError)
                assert each.args == (number,)
            else:
                assert each == number
        names = {each.name for each in threading.enumerate()}
        assert not names & {f"calls-{number}" for number in range(4, 200)}

    run(body)
    run(body)


def test_a_task_that_is_cancelled_ends_when_its_call_has() -> None:
    async def body() -> None:
        threads, began, go = OwnThreads(1, "calls"), threading.Event(), threading.Event()
        ended: list[str] = []

        def call() -> None:
            began.set()
            go.wait(60)
            ended.append("call")

        task = asyncio.create_task(threads.run(call))
        while not began.is_set():
            await asyncio.sleep(0)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["call"]
        assert await threads.run(lambda: 5) == 5

    run(body)


def test_threads_end_with_what_they_are_for() -> None:
    async def body() -> list[threading.Thread]:
        threads = OwnThreads(2, "ended-with-it")
        return [await threads.run(threading.current_thread)]

    for thread in asyncio.run(body()):
        gc.collect()
        thread.join(60)
        assert not thread.is_alive()


def test_a_call_that_is_not_waited_for_any_longer_keeps_its_thread_until_it_ends() -> None:
    async def body() -> None:
        threads, go = FewThreads(1, "looks to make"), threading.Event()
        with pytest.raises(TimeoutError):
            await threads.run(lambda: go.wait(60), seconds=60, answer_seconds=0.001)
        with pytest.raises(OverloadedError, match="looks to make"):
            await threads.run(lambda: None, seconds=0.001)
        go.set()
        assert await threads.run(lambda: 7, seconds=60, answer_seconds=60) == 7

    run(body)
