"""What a reader says of itself while the event loop that answers beside it stands still."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from indexrelay.reloaders import heartbeat
from indexrelay.reloaders.heartbeat import SILENT_SECONDS, Heartbeat
from tests.reloaders.bench import Bench
from tests.storage.artifacts.samples import MovedClock


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type] # a coroutine is what these give


@pytest.fixture
def beating_at_every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.usefixtures("beating_at_every_turn")
def test_a_reader_is_ready_only_while_the_loop_of_its_service_turns(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()

    async def body() -> None:
        async with reader.watching_loop():
            earliest = bench.clock.now()
            await turns()
            latest = bench.clock.now()
            bench.clock.advance(SILENT_SECONDS - 0.1)
            assert reader.state.ready
            bench.clock.advance(0.1)  # and the loop has not turned: this is its thread
            state = reader.state
            assert not state.ready
            assert state.service_silent_since is not None
            assert earliest <= state.service_silent_since <= latest
            assert reader.ready, "what is required is served: that is another question"
            await turns()
            state = reader.state
            assert (state.ready, state.service_silent_since) == (True, None)
        bench.clock.advance(10 * SILENT_SECONDS)
        assert reader.state.ready, "a service that has ended is not missed"

    run(body)


@pytest.mark.usefixtures("beating_at_every_turn")
def test_the_one_of_two_services_that_stood_still_first_counts(bench: Bench) -> None:
    reader = bench.reader()

    async def body() -> None:
        async with reader.watching_loop():
            await turns()
            latest = bench.clock.now()
            bench.clock.advance(1)
            async with reader.watching_loop():
                bench.clock.advance(SILENT_SECONDS)
                since = reader.state.service_silent_since
                assert since is not None
                assert since <= latest

    run(body)


def test_a_reader_without_a_service_says_nothing_of_one(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    bench.clock.advance(10 * SILENT_SECONDS)
    assert (reader.state.ready, reader.state.service_silent_since) == (True, None)


def test_it_is_told_in_which_call_the_thread_of_the_loop_is() -> None:
    clock, made, go = MovedClock(), threading.Event(), threading.Event()
    beats: list[Heartbeat] = []

    def stand_still() -> None:
        beats.append(Heartbeat(clock))
        made.set()
        go.wait()

    thread = threading.Thread(target=stand_still)
    thread.start()
    made.wait()
    try:
        assert "in stand_still" in beats[0].where
    finally:
        go.set()
        thread.join()
    assert beats[0].where == ""
    assert beats[0].silent_since is None
    clock.advance(SILENT_SECONDS)
    assert beats[0].silent_since is not None
