"""Queries borrow a snapshot and never wait; its last user closes what nobody serves any more.

Whoever refreshes, closes or searches does it on a thread of its own; releases arrive over the
backend.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from indexrelay.reloaders import Reloader, ReloaderStoppedError, Snapshot
from tests.contracts.serving import SECONDS, Serving, served_words
from tests.contracts.together import together
from tests.fixtures.logs import capture_logs
from tests.reloaders.bench import texts
from tests.reloaders.kinds import ServedWords
from tests.streams.polling import eventually

GROUPS = {"voyager": "songs", "clap": "songs"}


def test_a_reader_that_is_closed_in_the_middle_of_a_reload_serves_no_more_and_closes_all(
    serving: Serving,
) -> None:
    """Lucene: testIntermediateClose."""
    warming, closing = threading.Event(), threading.Event()
    loaded: list[ServedWords] = []

    def warm(_old: Snapshot, new: Snapshot) -> None:
        loaded.append(new["voyager"])
        if new.release == 2:
            warming.set()
            assert closing.wait(SECONDS)

    first = serving.release(voyager="v1")
    reader = serving.start(before_swap=[warm])
    serving.report(first)
    serving.release(voyager="v2")
    assert warming.wait(SECONDS)
    assert texts(reader) == {"voyager": "v1"}, "what is warmed is not served yet"
    stopping = threading.Thread(target=reader.stop)
    stopping.start()
    eventually(reader._stopping.is_set, seconds=SECONDS)
    assert texts(reader) == {"voyager": "v1"}, "queries go on until it has stopped"
    closing.set()
    stopping.join(timeout=SECONDS)
    with pytest.raises(ReloaderStoppedError):
        reader.acquire()
    assert [served.text for served in loaded] == ["v1", "v2"]
    eventually(lambda: [served.closed for served in loaded] == [1, 1], seconds=SECONDS)


def test_closing_twice_is_closing_once(serving: Serving) -> None:
    """Lucene: testCloseTwice."""
    reader = serving.start()
    serving.report(serving.release(voyager="v1"))
    served = served_words(reader)
    reader.stop()
    reader.stop()
    assert served.closed == 1


def test_giving_a_snapshot_back_twice_takes_it_from_nobody_else(serving: Serving) -> None:
    """Lucene: testReferenceDecrementIllegally."""
    reader = serving.start()
    serving.report(serving.release(voyager="v1"))
    with reader.acquire() as kept:
        given_back = reader.acquire()
        for _ in range(3):
            given_back.close()
        serving.report(serving.release(voyager="v2"))
        served: ServedWords = kept["voyager"]
        assert served.read() == "v1"
        assert texts(reader) == {"voyager": "v2"}
    eventually(lambda: served.closed == 1, seconds=SECONDS)


def test_after_stop_nothing_is_lent_and_what_is_lent_ends_in_peace(serving: Serving) -> None:
    """Lucene: testEnsureOpen, but that a stopped reader may start again."""
    reader = serving.start()
    serving.report(serving.release(voyager="v1"))
    with reader.acquire() as snapshot:
        served: ServedWords = snapshot["voyager"]
        reader.stop()
        with pytest.raises(ReloaderStoppedError):
            reader.acquire()
        assert served.read() == "v1"
    assert served.closed == 1
    assert not reader.ready
    reader.start()
    assert reader.wait_ready(SECONDS)
    assert texts(reader) == {"voyager": "v1"}


def test_listeners_are_called_for_a_swap_and_for_nothing_else(serving: Serving) -> None:
    """Lucene: testListenerCalled."""
    called: list[tuple[str, int]] = []
    reader = serving.start(
        before_swap=[lambda _old, new: called.append(("before", new.release))],
        after_swap=[lambda _old, new: called.append(("after", new.release))],
    )
    first = serving.release(voyager="v1")
    serving.report(first)
    assert called == [("before", 1), ("after", 1)]
    serving.backend.publish(b"look", key=serving.backend.keys.reloads)  # there is nothing new
    assert not reader.step()
    serving.report(serving.release(voyager="v2"))
    assert called == [("before", 1), ("after", 1), ("before", 2), ("after", 2)]


def test_listeners_are_given_both_snapshots_while_the_old_one_is_served_and_then_the_new(
    serving: Serving,
) -> None:
    """Lucene: testPreviousReaderIsPassed."""
    seen: list[Any] = []
    readers: list[Reloader] = []

    def say(when: str) -> Any:
        def callback(old: Snapshot, new: Snapshot) -> None:
            (reader,) = readers
            seen.append((when, old.release, new.release, texts(reader)))

        return callback

    first = serving.bench.publish(voyager="v1")
    reader = serving.reader(before_swap=[say("before")], after_swap=[say("after")])
    readers.append(reader)
    reader.start()
    serving.report(first)
    serving.report(serving.release(voyager="v2"))
    assert seen == [
        ("before", 0, 1, {}),
        ("after", 0, 1, {"voyager": "v1"}),
        ("before", 1, 2, {"voyager": "v1"}),
        ("after", 1, 2, {"voyager": "v2"}),
    ]


def test_a_refresh_on_one_thread_leaves_the_next_refresh_free_on_another(
    serving: Serving,
) -> None:
    """Lucene: testMaybeRefreshBlockingLock."""
    reader = serving.reader()
    serving.release(voyager="v1")
    assert together([reader.step]) == [True]
    serving.release(voyager="v2")
    assert reader.step()
    assert texts(reader) == {"voyager": "v2"}


class Searching:
    """Queries, one after another and on many threads, until they are told to end."""

    def __init__(self, reader: Reloader, *, may_be_stopped: bool) -> None:
        self._reader = reader
        self._may_be_stopped = may_be_stopped
        self.ended = threading.Event()
        self.served: set[ServedWords] = set()
        """Everything that a query was given."""
        self.wrong: list[str] = []

    def search(self) -> None:
        while not self.ended.is_set():
            try:
                snapshot = self._reader.acquire()
            except ReloaderStoppedError:
                if not self._may_be_stopped:
                    raise
            else:
                with snapshot:
                    self._look_at(snapshot)

    def _look_at(self, snapshot: Snapshot) -> None:
        if self._may_be_stopped and not snapshot:
            return  # it has just been started again
        voyager, clap = snapshot["voyager"], snapshot["clap"]
        self.served.update((voyager, clap))
        said = {voyager.read(), clap.read(), str(snapshot.release)}
        if len(said) != 1:
            self.wrong.append(f"{said}")

    def publish(self, serving: Serving, releases: int) -> None:
        """Make releases whose components all say its number, then end the queries."""
        try:
            for number in range(2, 2 + releases):
                said = {"voyager": str(number), "clap": str(number)}
                release = serving.release(groups=GROUPS, **said)
                if not self._may_be_stopped:
                    serving.report(release)
        finally:
            self.ended.set()


@pytest.mark.usefixtures("taking_turns_often")
def test_nobody_sees_a_closed_or_mixed_snapshot_while_all_refresh_and_close_at_once(
    serving: Serving,
) -> None:
    """Lucene: testConcurrentIndexCloseSearchAndRefresh."""
    serving.release(groups=GROUPS, voyager="1", clap="1")
    reader = serving.start()
    searching = Searching(reader, may_be_stopped=True)

    def refresh() -> None:
        while not searching.ended.is_set():
            reader.step()

    def close_and_open() -> None:
        while not searching.ended.is_set():
            reader.stop()
            reader.start()

    publish: Callable[[], None] = partial(searching.publish, serving, 15)
    together([searching.search, searching.search, refresh, close_and_open, publish])
    reader.stop()
    assert searching.wrong == []
    assert len(searching.served) > 2
    eventually(lambda: {each.closed for each in searching.served} == {1}, seconds=SECONDS)


@pytest.mark.usefixtures("taking_turns_often")
def test_searching_while_releases_arrive_never_fails_and_closes_what_was_replaced_once(
    serving: Serving,
) -> None:
    """Lucene: testSearcherManager."""
    first = serving.release(groups=GROUPS, voyager="1", clap="1")
    reader = serving.start()
    serving.report(first)
    searching = Searching(reader, may_be_stopped=False)
    publish: Callable[[], None] = partial(searching.publish, serving, 10)
    with capture_logs() as lines:
        together([searching.search, searching.search, publish])
    current = {served_words(reader, name) for name in GROUPS}
    replaced = searching.served - current
    assert searching.wrong == []
    assert replaced
    eventually(lambda: {each.closed for each in replaced} == {1}, seconds=SECONDS)
    assert {each.closed for each in current} == {0}
    assert [line for line in lines if line["log_level"] in ("warning", "error")] == []
