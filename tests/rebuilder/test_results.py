"""The result of a pass, in the words that operators know."""

from datetime import UTC, datetime, timedelta

import pytest

from indexrelay.rebuilder.results import answer_of
from indexrelay.schemas.messages import (
    BatchCompleted,
    BuildOutcome,
    ComponentResult,
    Event,
    RebuildFinished,
    RebuildResult,
    RebuildStatus,
)
from tests.rebuilder.conftest import MakeBench, behaving


def test_an_event_for_what_is_covered_already_gives_a_result_and_no_release(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=behaving("tracks"))
    commit = bench.commit("a")
    bench.rebuild()
    event = Event.of(
        BatchCompleted(collection="tracks", epoch=commit.epoch, batch_id="batch-1", generation=1),
        source="test",
        time=bench.release().created_at,
    )
    bench.connection.commands.xadd(bench.keys.events, {"event": event.to_bytes()})
    result = bench.rebuild()
    assert (result.status, result.message, result.release) == (
        RebuildStatus.SUCCESS,
        "Nothing was due",
        None,
    )
    assert bench.release().number == 1


def test_several_batches_that_came_together_make_one_release(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.commit("b")
    bench.commit("c")
    result = bench.rebuild()
    assert result.batch_ids == ("batch-1", "batch-2", "batch-3")
    assert result.components["index"].covers == {"tracks": 3}
    assert bench.rebuilder.step() is None


def test_when_all_fail_there_is_a_result_and_no_release(make_bench: MakeBench) -> None:
    bench = make_bench(bad=behaving("tracks", behaviour="raises"))
    bench.commit("a")
    result = bench.rebuild()
    assert (result.status, result.message) == (RebuildStatus.FAILURE, "All index rebuilds failed")
    assert result.release is None
    assert bench.store.newest_release() is None
    assert bench.messages(bench.keys.reloads) == []
    [finished] = bench.messages(bench.keys.results)
    assert isinstance(finished.data, RebuildFinished)
    assert finished.data.status is RebuildStatus.FAILURE


def test_a_request_for_a_held_component_fails_and_says_why(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"), other=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    bench.store.hold("index", reason="it was better")
    bench.catalog.inbox.request("r1", components=("index",), force=False, reason="")
    result = bench.rebuild()
    assert (result.status, result.request_ids) == (RebuildStatus.FAILURE, ("r1",))
    assert result.message == "index was not built: it is held (it was better); lift it first"
    bench.catalog.inbox.request("r2", components=("index", "other"), force=False, reason="")
    result = bench.rebuild()
    assert result.status is RebuildStatus.PARTIAL_SUCCESS
    assert result.indexes_rebuilt == ("other",)


@pytest.mark.parametrize(
    ("name", "why"),
    [("nonsense", "there is no such component"), ("index", "nothing was committed to tracks yet")],
)
def test_a_request_for_what_cannot_be_built_says_why(
    make_bench: MakeBench, name: str, why: str
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.catalog.inbox.request("r1", components=(name,), force=False, reason="")
    result = bench.rebuild()
    assert (result.status, result.message) == (
        RebuildStatus.FAILURE,
        f"{name} was not built: {why}",
    )


def test_the_answer_to_a_request_has_all_that_its_pass_released_one_after_another() -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)

    def part(
        minute: int, *, release: int | None, failed: str = "", **rebuilt: int
    ) -> RebuildResult:
        parts = {
            name: ComponentResult(outcome=BuildOutcome.REBUILT, entries=entries)
            for name, entries in rebuilt.items()
        }
        lost = {failed: ComponentResult(outcome=BuildOutcome.FAILED)} if failed else {}
        return RebuildResult(
            status=RebuildStatus.FAILURE if failed else RebuildStatus.SUCCESS,
            message="All index rebuilds failed" if failed else f"minute {minute}",
            indexes_rebuilt=tuple(parts),
            indexes_failed=tuple(lost),
            components={**parts, **lost},
            release=release,
            request_ids=("r",) if minute == 3 else (),
            started_at=began,
            finished_at=began + timedelta(minutes=minute),
        )

    first, second, nothing = (
        part(1, release=7, index=3),
        part(2, release=8, map=4),
        part(3, release=None),
    )
    assert answer_of([first]) == first
    whole = answer_of([first, second, nothing])
    assert (whole.status, whole.message) == (
        RebuildStatus.SUCCESS,
        "Successfully rebuilt 2 index(es)",
    )
    assert (whole.release, whole.indexes_rebuilt) == (8, ("index", "map"))
    assert whole.components == {**first.components, **second.components}
    assert (whole.request_ids, whole.finished_at) == (("r",), nothing.finished_at)
    mixed = answer_of([first, part(3, release=None, failed="map")])
    assert (mixed.status, mixed.indexes_failed) == (RebuildStatus.PARTIAL_SUCCESS, ("map",))
    assert mixed.message == "Rebuilt 1 of 2 index(es); failed: map"
