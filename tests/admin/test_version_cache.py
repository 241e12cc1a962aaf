"""Looks into versions: bounded in time and number, and never a hindrance to the next one."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from indexrelay.admin import version_cache
from indexrelay.admin.maps import Maps
from indexrelay.admin.version_cache import IDLE_SECONDS, TIDY_SECONDS, LookThreads, VersionCache
from indexrelay.service.problems import OverloadedError, RefusedError
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.testing import Pipeline
from indexrelay.testing.clock import FakeClock


class Cache:
    """Versions of the songs, in a time of their own."""

    def __init__(self, songs: Pipeline) -> None:
        self.clock = FakeClock()
        self.versions = VersionCache(
            songs.store, definitions=songs.settings.components, clock=self.clock
        )
        self._opener = self.versions._opener
        self.opened: list[str] = []
        self.slow: dict[str, threading.Event] = {}
        """By component: what its opening waits for."""
        self.begun = threading.Event()
        self.versions._opener = self  # type: ignore[assignment]

    def open(self, component: str, version: str, **how: Any) -> Any:
        """As the opener does, later."""
        self.opened.append(component)
        if component in self.slow:
            self.begun.set()
            assert self.slow[component].wait(10)
        return self._opener.open(component, version, **how)

    def ask(self, component: str, release: int = 2) -> weakref.ref[Any]:
        """Ask for one; what is given dies with it."""
        named = self.versions.named(component, self.versions.release(release))
        return weakref.ref(self.versions.open(named))


@pytest.fixture
def cache(songs: Pipeline) -> Iterator[Cache]:
    cache = Cache(songs)
    yield cache
    cache.versions.close()


def test_nobody_waits_for_the_opening_of_another_version_and_each_is_opened_once(
    cache: Cache,
) -> None:
    cache.slow["sounds"] = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        slow = [threads.submit(cache.ask, "sounds") for _ in range(2)]
        assert cache.begun.wait(10)
        assert cache.ask("words")() is not None, "while the other one is not open yet"
        assert not any(each.done() for each in slow)
        cache.slow["sounds"].set()
        assert slow[0].result(10)() is slow[1].result(10)()
    assert sorted(cache.opened) == ["sounds", "words"]
    assert not cache.versions._opening


def test_a_version_that_nobody_asked_for_in_ten_minutes_is_closed(cache: Cache) -> None:
    maps = Maps(cache.versions)
    chart = maps.chart("chart")
    seen = weakref.ref(chart.opened)
    words = cache.ask("words")
    cache.clock.advance(IDLE_SECONDS - 1)
    assert maps.chart("chart").opened is chart.opened
    cache.clock.advance(1)
    cache.versions.tidy()
    gc.collect()
    assert words() is None
    cache.clock.advance(IDLE_SECONDS)
    cache.versions.tidy()
    assert len(cache.versions) == 0
    assert len(chart.ids([0])) == 1, "who still uses it is not disturbed"
    del chart
    gc.collect()
    assert seen() is None, "the array of the map does not keep it open either"


def test_a_version_that_no_kept_release_names_is_closed_within_a_minute(
    cache: Cache, songs: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = cache.ask("sounds", 1), cache.ask("sounds", 2)
    looks: list[int] = []

    def kept(_: ArtifactStore) -> list[Any]:
        looks.append(1)
        return [songs.store.release(2)]

    monkeypatch.setattr(ArtifactStore, "releases", kept)
    cache.versions.tidy()
    assert older() is not None
    for _ in range(3):
        cache.clock.advance(TIDY_SECONDS / 2)
        cache.versions.tidy()
    gc.collect()
    assert (older(), newer() is None) == (None, False)
    assert len(looks) == 1, "the store is looked into once a minute"


def test_where_the_store_cannot_be_read_only_age_closes_a_version(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = cache.ask("words")

    def refused(_: ArtifactStore) -> list[Any]:
        raise OSError("stale")

    monkeypatch.setattr(ArtifactStore, "releases", refused)
    cache.clock.advance(TIDY_SECONDS)
    cache.versions.tidy()
    assert words() is not None
    cache.clock.advance(IDLE_SECONDS)
    cache.versions.tidy()
    assert len(cache.versions) == 0


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


def test_who_gets_no_thread_reads_which_components_hold_them_until_they_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on, both_ended = threading.Event(), threading.Semaphore(0)
    overran: list[str] = []
    log = SimpleNamespace(
        warning=lambda _event, *, component, **_: overran.append(component),
        info=lambda _event, **_: both_ended.release(),
    )
    monkeypatch.setattr(version_cache, "_log", log)

    async def ask() -> None:
        threads = LookThreads("looks to make", wait_seconds=0.01, answer_seconds=0)
        for name in ("sounds", "words"):
            with pytest.raises(RefusedError, match="no answer"):
                await threads.run(lambda: go_on.wait(10), of=name)
        assert overran == ["sounds", "words"]
        with pytest.raises(RefusedError, match="a look into sounds, words does not end") as refused:
            await threads.run(lambda: True, of="chart")
        assert refused.value.status == 503
        go_on.set()
        for _ in range(2):
            assert await asyncio.to_thread(both_ended.acquire, timeout=10)
        assert not threads._late

    asyncio.run(ask())
