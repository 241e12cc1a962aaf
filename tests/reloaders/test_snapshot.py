"""Queries borrow a snapshot and never wait; its last user closes what nobody serves any more."""

import pytest

from indexrelay.reloaders import (
    ComponentNotServedError,
    Snapshot,
    SnapshotClosedError,
)
from indexrelay.reloaders.snapshot import Contents, Current, ServedComponent
from tests.fixtures.logs import capture_logs
from tests.reloaders.bench import Bench, texts
from tests.reloaders.kinds import ServedWords
from tests.storage.artifacts.samples import MOMENT


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


def test_a_snapshot_names_what_it_holds(bench: Bench) -> None:
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


def test_a_query_that_gives_back_the_last_snapshot_of_a_version_need_not_close_it(
    bench: Bench,
) -> None:
    release = bench.publish(voyager="v1")
    version = release.components["voyager"]
    old = ServedWords("v1")
    served = ServedComponent(
        old,
        version=version,
        manifest=bench.store.version("voyager", version),
        inodes={},
        seconds=0.0,
        applied_at=MOMENT,
    )
    current = Current()
    current.swap(Contents(release=1, components={"voyager": served}))
    del served
    with current.acquire() as snapshot:
        assert _borrowed(snapshot) is old
        current.swap(Contents(release=2))
    assert old.closed == 0
    current.release_old()  # as the thread that swaps does a moment later
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


def test_a_value_that_cannot_be_closed_fails_no_query(bench: Bench) -> None:
    bench.publish(voyager="unclosable")
    reader = bench.reader()
    reader.step()
    bench.publish(voyager="v2")
    with capture_logs() as lines:
        assert reader.step()
    assert texts(reader) == {"voyager": "v2"}
    assert "component.close_failed" in [line["event"] for line in lines]


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


def test_a_stopped_reader_can_serve_again(bench: Bench) -> None:
    bench.publish(voyager="v1")
    reader = bench.reader()
    reader.step()
    reader.stop()
    assert reader.step()
    assert texts(reader) == {"voyager": "v1"}
