"""How fresh an answer has to be, what a reader does for it, and what it refuses."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from indexrelay.reloaders import Consistency, NotFreshError, Reloader, ReloaderStoppedError
from indexrelay.reloaders.consistency import FreshWait
from indexrelay.schemas.messages import LiveStatus
from indexrelay.schemas.session import SessionToken
from indexrelay.testing.pipeline import Pipeline
from tests.reloaders.test_live import (
    OpenPipeline,
    lose,
    make_settings,
    open_pipeline,
    pipeline,
    put,
    reader_without_catalog,
    released,
    status,
)

__all__ = ["open_pipeline", "pipeline"]  # its fixtures

STRONG = Consistency.strong()


def found(reader: Reloader, asked: Consistency, *, timeout_seconds: float = 0) -> list[str]:
    """What a snapshot holds that is as fresh as asked."""
    with reader.acquire(asked, timeout_seconds=timeout_seconds) as snapshot:
        return sorted(snapshot["similar"].ids)


def refused(reader: Reloader, asked: Consistency) -> str:
    with pytest.raises(NotFreshError) as raised:
        found(reader, asked)
    return str(raised.value)


def test_a_session_and_a_strong_read_find_a_write_of_which_the_message_was_lost(
    pipeline: Pipeline,
) -> None:
    released(pipeline)
    reader, other = pipeline.reader("web"), pipeline.reader("api")
    commit = put(pipeline, {"new": 9})
    lose(pipeline, -1)
    assert found(reader, Consistency.eventual()) == ["a", "b", "c"]
    assert found(reader, Consistency.session(commit.session)) == ["a", "b", "c", "new"]
    assert found(other, STRONG) == ["a", "b", "c", "new"]
    with other.acquire() as snapshot:
        assert snapshot.session() == snapshot.session("similar") == commit.session
    assert other.wait_covers(commit.session, timeout_seconds=0)


def test_a_bounded_read_believes_a_look_that_is_new_enough(pipeline: Pipeline) -> None:
    released(pipeline)
    reader = pipeline.reader("web")
    reader.step()
    put(pipeline, {"new": 9})
    lose(pipeline, -1)
    pipeline.clock.advance(3)
    with reader.acquire() as snapshot:
        assert reader.lag_seconds(snapshot, "similar") == 3
    assert found(reader, Consistency.bounded(3)) == ["a", "b", "c"]
    assert found(reader, Consistency.bounded(2.9)) == ["a", "b", "c", "new"]
    with reader.acquire() as snapshot:
        assert reader.lag_seconds(snapshot, "similar") == 0


def test_a_lag_is_a_number_and_not_negative() -> None:
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="max_lag_seconds"):
            Consistency.bounded(wrong)


def test_a_collection_that_is_not_live_waits_for_a_release(open_pipeline: OpenPipeline) -> None:
    pipeline = open_pipeline(make_settings(collections={"tracks": {"dimension": 3}}))
    released(pipeline)
    reader = pipeline.reader("web")
    with reader.acquire() as snapshot:
        assert reader.lag_seconds(snapshot, "similar") is None
    assert found(reader, STRONG) == ["a", "b", "c"]
    commit = put(pipeline, {"new": 9})
    for asked in (STRONG, Consistency.session(commit.session)):
        said = refused(reader, asked)
        assert "similar has tracks up to generation 1, and 2 was asked for" in said
        assert "next release" in said
    assert not reader.wait_covers(commit.session, timeout_seconds=0)
    pipeline.settle()
    for asked in (STRONG, Consistency.session(commit.session)):
        assert found(reader, asked) == ["a", "b", "c", "new"]


def test_who_waits_is_woken_by_a_message_a_release_and_the_end(
    open_pipeline: OpenPipeline,
) -> None:
    pipeline = open_pipeline(make_settings(most=2))
    released(pipeline)
    far = reader_without_catalog(pipeline)  # so that no look finds what is waited for
    epoch = pipeline.catalog.collections.get("tracks").epoch

    def waits_for(generation: int) -> FreshWait:
        token = SessionToken.at("tracks", epoch, generation)
        return far.freshness.begin(Consistency.session(token), components=["similar"])

    by_message, by_release, by_the_end = waits_for(2), waits_for(3), waits_for(4)
    woken: list[int] = []
    for number, wait in enumerate((by_message, by_release, by_the_end)):
        wait.when_settled(lambda number=number: woken.append(number))  # type: ignore[misc]
    assert woken == []
    put(pipeline, {"n1": 8})
    far.step()
    assert woken == [0]
    put(pipeline, {"n2": 9, "n3": 10})
    far.step()
    assert status(far) is LiveStatus.FULL
    assert woken == [0]
    assert far.is_missing_changes(by_message.result(), "similar")
    pipeline.settle()
    far.step()
    assert woken == [0, 1]
    with by_release.result() as snapshot:
        assert len(snapshot["similar"]) == 6
    far.stop()
    assert woken == [0, 1, 2]
    with pytest.raises(ReloaderStoppedError):
        by_the_end.result()


def test_what_comes_in_the_moment_in_which_a_wait_ends_is_not_refused(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    released(pipeline)
    reader = pipeline.reader("web")
    freshness, settle = reader.freshness, reader.freshness._settle

    def settle_too_early(wait: FreshWait) -> set[str]:
        missing = settle(wait)
        reader.step()
        return missing

    commit = put(pipeline, {"new": 9})
    lose(pipeline, -1)
    monkeypatch.setattr(freshness, "_ask", lambda _: None)
    with freshness.begin(Consistency.session(commit.session), components=None) as wait:
        assert not wait.settled
        put(pipeline, {"more": 9})
        monkeypatch.setattr(freshness, "changed", lambda: None)
        monkeypatch.setattr(freshness, "_settle", settle_too_early)
        assert "more" in wait.result()["similar"].ids


def test_a_running_reader_wakes_a_thread_that_waits(pipeline: Pipeline) -> None:
    released(pipeline)
    reader = pipeline.reader("web")
    reader.start()
    assert reader.wait_ready(30)
    results: list[list[str]] = []
    epoch = pipeline.catalog.collections.get("tracks").epoch
    tokens = [SessionToken.at("tracks", epoch, 2)] * 4

    def wait(token: SessionToken) -> None:
        results.append(found(reader, Consistency.session(token), timeout_seconds=30))

    commit = put(pipeline, {"new": 9})
    assert commit.session == tokens[0]
    lose(pipeline, -1)
    threads = [threading.Thread(target=wait, args=[token]) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [["a", "b", "c", "new"]] * 4
    assert found(reader, STRONG, timeout_seconds=30) == ["a", "b", "c", "new"]


def test_a_reader_without_the_catalog_refuses_what_only_the_catalog_knows(
    pipeline: Pipeline,
) -> None:
    released(pipeline)
    with closing_reader(reader_without_catalog(pipeline)) as far:
        for asked in (STRONG, Consistency.bounded(60)):
            assert "cannot look into the catalog" in refused(far, asked)
        commit = put(pipeline, {"new": 9})
        far.step()
        assert found(far, Consistency.session(commit.session)) == ["a", "b", "c", "new"]
        lost = put(pipeline, {"lost": 10})
        lose(pipeline, -1)
        assert "and 3 was asked for" in refused(far, Consistency.session(lost.session))


@contextmanager
def closing_reader(reader: Reloader) -> Iterator[Reloader]:
    try:
        yield reader
    finally:
        reader.stop()


def test_a_made_up_session_is_refused_at_once_and_says_why(pipeline: Pipeline) -> None:
    released(pipeline)
    reader = pipeline.reader("web")
    epoch = pipeline.catalog.collections.get("tracks").epoch
    ahead = SessionToken.at("tracks", epoch, 2**62)
    wait = reader.freshness.begin(Consistency.session(ahead), components=["similar"])
    assert wait.settled
    with pytest.raises(NotFreshError, match="the catalog is at generation 1: it was brought back"):
        wait.result()
    # Of another life, which the catalog knows nothing of: over, if it ever was.
    other = SessionToken.at("tracks", "made-up", 2**62)
    assert found(reader, Consistency.session(other)) == ["a", "b", "c"]
    # Of a collection that the component is not made from: nothing is said about it.
    foreign = SessionToken.at("secrets", "made-up", 7)
    assert found(reader, Consistency.session(foreign)) == ["a", "b", "c"]


def test_what_was_written_into_a_dropped_collection_is_asked_for_no_longer(
    pipeline: Pipeline,
) -> None:
    released(pipeline)
    reader = pipeline.reader("web")
    before = put(pipeline, {"old": 9}).session
    reader.step()
    pipeline.catalog.collections.drop("tracks")
    assert "it was dropped" in refused(reader, STRONG)
    anew = put(pipeline, {"other": 10}).session
    # The old life is still served: whoever has seen more of it than that must not go back.
    assert found(reader, Consistency.session(before)) == ["a", "b", "c", "old"]
    for asked in (STRONG, Consistency.session(anew), Consistency.session(before.merge(anew))):
        assert "made anew" in refused(reader, asked)
    pipeline.settle()
    both = before.merge(anew)
    for asked in (STRONG, Consistency.session(before), Consistency.session(both)):
        assert found(reader, asked) == ["other"]
    with reader.acquire() as snapshot:
        assert both.after(both, snapshot.session()) == anew
    with closing_reader(reader_without_catalog(pipeline)) as far:
        assert "only the catalog knows which" in refused(far, Consistency.session(before))


def test_nobody_waits_for_more_than_the_components_that_are_asked(
    open_pipeline: OpenPipeline,
) -> None:
    components = {
        "similar": {"kind": "vector_index", "from": "tracks", "index": "Flat"},
        "map": {"kind": "projection", "from": "tracks"},
    }
    pipeline = open_pipeline(make_settings(components=components))
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert([f"n{number}" for number in range(20)], [[n, 1, 2] for n in range(20)])
    pipeline.settle()
    reader = pipeline.reader("web")
    commit = put(pipeline, {"new": 9})
    assert reader.wait_covers(commit.session, timeout_seconds=0, components=["similar"])
    assert "map has tracks up to generation 1" in refused(
        reader, Consistency.session(commit.session)
    )


def test_an_idle_reader_says_that_a_person_holds_what_it_serves(pipeline: Pipeline) -> None:
    released(pipeline)
    reader = pipeline.reader("web")
    pipeline.store.hold("similar", reason="the new data is wrong")
    reader.step()
    commit = put(pipeline, {"new": 9})
    reader.step()
    assert status(reader) is LiveStatus.IDLE
    assert "next release" in refused(reader, Consistency.session(commit.session))
    pipeline.store.lift("similar", reason="it was right")
    reader.step()
    assert found(reader, Consistency.session(commit.session)) == ["a", "b", "c", "new"]
