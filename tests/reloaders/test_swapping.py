"""Queries borrow a snapshot and never wait; its last user closes what nobody serves any more.

The scenarios of Lucene's TestSearcherManager, carried over: intermediate close, ensure open,
listeners called, concurrent close, search and refresh.
"""

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from indexrelay.reloaders import (
    ComponentNotServedError,
    ReloaderStoppedError,
    Snapshot,
    SnapshotClosedError,
)
from tests.fixtures.logs import capture_logs
from tests.reloaders.bench import Bench, texts
from tests.reloaders.kinds import ServedWords


def _borrowed(snapshot: Snapshot, name: str = "voyager") -> ServedWords:
    served: ServedWords = snapshot[name]
    return served


def test_before_the_first_release_a_snapshot_is_empty(bench: Bench) -> None:
    reader = bench.reader()
    with reader.acquire() as snapshot:
        assert dict(snapshot) == {}
        assert snapshot.release == 0
        with pytest.raises(ComponentNotServedError, match="there is nothing yet"):
            snapshot["voyager"]


def test_a_snapshot_says_what_it_holds(bench: Bench) -> None:
    release = bench.publish(voyager="v1", clap="c1")
    reader = bench.reader()
    assert reader.step()
    with reader.acquire() as snapshot:
        assert sorted(snapshot) == ["clap", "voyager"]
        assert len(snapshot) == 2
        assert snapshot.release == 1
        assert snapshot.versions == release.components
        assert snapshot.covers == {"voyager": {"tracks": 1}, "clap": {"tracks": 1}}
        assert snapshot.manifest("clap").component == "clap"
        assert "map" not in snapshot
        with pytest.raises(ComponentNotServedError, match="there is clap, voyager"):
            snapshot["map"]


def test_a_borrowed_snapshot_stays_as_it_is_and_its_last_user_closes_it(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    with reader.acquire() as first, reader.acquire() as second:
        old = _borrowed(first)
        bench.publish(voyager="v2")
        assert reader.step()
        assert texts(reader) == {"voyager": "v2"}
        assert _borrowed(first).read() == _borrowed(second).read() == "v1"
        first.close()
        assert old.closed == 0
    assert old.closed == 1


def test_an_exception_in_a_query_gives_its_snapshot_back(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    taken: list[ServedWords] = []

    def query() -> None:
        with reader.acquire() as snapshot:
            taken.append(_borrowed(snapshot))
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        query()
    bench.publish(voyager="v2")
    reader.step()
    assert [old.closed for old in taken] == [1]
    assert caught.tb is not None  # it holds the query's frame, and that the snapshot


def test_what_did_not_change_is_shared_and_not_loaded_again(bench: Bench) -> None:
    bench.publish(voyager="v1", clap="c1")
    reader = bench.reader()
    reader.step()
    with reader.acquire() as snapshot:
        clap, voyager = _borrowed(snapshot, "clap"), _borrowed(snapshot)
    bench.publish(voyager="v2")
    reader.step()
    with reader.acquire() as snapshot:
        assert _borrowed(snapshot, "clap") is clap
    assert (clap.closed, voyager.closed) == (0, 1)


def test_a_snapshot_that_was_given_back_is_closed(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    with reader.acquire() as snapshot:
        pass
    snapshot.close()
    for use in (lambda: snapshot["voyager"], lambda: list(snapshot), lambda: snapshot.release):
        with pytest.raises(SnapshotClosedError):
            use()


def test_a_value_that_cannot_be_closed_fails_nobody(bench: Bench) -> None:
    bench.publish(voyager="unclosable")
    reader = bench.reader()
    reader.step()
    bench.publish(voyager="v2")
    with capture_logs() as lines:
        assert reader.step()
    assert texts(reader) == {"voyager": "v2"}
    assert "component.close_failed" in [line["event"] for line in lines]


def test_callbacks_see_both_snapshots_before_and_after_the_swap(bench: Bench) -> None:
    seen: list[Any] = []

    def say(when: str) -> Any:
        def callback(old: Snapshot, new: Snapshot) -> None:
            seen.append((when, old.release, new.release, texts(reader)))

        return callback

    reader = bench.reader(before_swap=[say("before")], after_swap=[say("after")])
    bench.publish(voyager="v1")
    reader.step()
    bench.publish(voyager="v2")
    reader.step()
    assert seen == [
        ("before", 0, 1, {}),
        ("after", 0, 1, {"voyager": "v1"}),
        ("before", 1, 2, {"voyager": "v1"}),
        ("after", 1, 2, {"voyager": "v2"}),
    ]


def test_a_callback_that_raises_stops_neither_the_swap_nor_the_next_callback(bench: Bench) -> None:
    called = []

    def raising(_old: Snapshot, _new: Snapshot) -> None:
        raise RuntimeError("not today")

    reader = bench.reader(
        before_swap=[raising, lambda *_: called.append("before")],
        after_swap=[raising, lambda *_: called.append("after")],
    )
    bench.publish(voyager="v1")
    with capture_logs() as lines:
        assert reader.step()
    assert texts(reader) == {"voyager": "v1"}
    assert called == ["before", "after"]
    failed = [line["when"] for line in lines if line["event"] == "swap.callback_failed"]
    assert failed == ["before", "after"]


def test_a_callback_that_keeps_a_snapshot_keeps_nothing_open(bench: Bench) -> None:
    kept: list[Snapshot] = []
    reader = bench.reader(after_swap=[lambda old, new: kept.extend((old, new))])
    bench.publish(voyager="v1")
    reader.step()
    with reader.acquire() as snapshot:
        first = _borrowed(snapshot)
    bench.publish(voyager="v2")
    reader.step()
    assert first.closed == 1
    assert len(kept) == 4


def test_after_stop_nothing_is_lent_and_running_queries_end_in_peace(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    with reader.acquire() as snapshot:
        served = _borrowed(snapshot)
        reader.stop()
        with pytest.raises(ReloaderStoppedError):
            reader.acquire()
        assert _borrowed(snapshot).read() == "v1"
    assert served.closed == 1
    assert not reader.ready


def test_a_stopped_reader_can_serve_again(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    reader.stop()
    assert reader.step()
    assert texts(reader) == {"voyager": "v1"}


@pytest.fixture
def taking_turns_often() -> Iterator[None]:
    """Threads take turns often: more chances to meet, and nobody waits long for the publisher."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("taking_turns_often")
def test_queries_on_many_threads_never_see_a_closed_or_a_mixed_snapshot(bench: Bench) -> None:
    """Search and refresh: both components of a release carry its number."""
    bench.publish(groups={"voyager": "g", "clap": "g"}, voyager="1", clap="1")
    reader = bench.reader()
    reader.step()
    served: set[ServedWords] = set()
    wrong: list[str] = []
    stop = threading.Event()

    def query() -> None:
        while not stop.is_set():
            with reader.acquire() as snapshot:
                voyager, clap = _borrowed(snapshot), _borrowed(snapshot, "clap")
                served.update((voyager, clap))
                if voyager.closed or clap.closed or voyager.text != clap.text:
                    wrong.append(f"{voyager.text} {clap.text}")
                if voyager.text != str(snapshot.release):
                    wrong.append(f"{voyager.text} in {snapshot.release}")

    threads = [threading.Thread(target=query) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(2, 22):
        bench.publish(groups={"voyager": "g", "clap": "g"}, voyager=str(number), clap=str(number))
        reader.step()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(served) > 2
    with reader.acquire() as snapshot:
        current = {_borrowed(snapshot), _borrowed(snapshot, "clap")}
    assert {one.closed for one in served - current} == {1}
    assert {one.closed for one in current} == {0}


def test_stopping_while_queries_run_closes_everything_once(bench: Bench) -> None:
    """Concurrent close."""
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    with reader.acquire() as snapshot:
        served = _borrowed(snapshot)
    started = threading.Barrier(5)
    refused = []

    def query() -> None:
        started.wait()
        try:
            while True:
                with reader.acquire() as snapshot:
                    _borrowed(snapshot).read()
        except ReloaderStoppedError as error:
            refused.append(error)

    threads = [threading.Thread(target=query) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    reader.stop()
    for thread in threads:
        thread.join()
    assert len(refused) == 4
    assert served.closed == 1
