"""What a reader found corrupt is hashed again by the rebuilder, and built again if it is right."""

import pytest

from indexrelay.rebuilder.presence import CorruptionReports
from indexrelay.testing.clock import FakeClock
from tests.rebuilder.conftest import Bench, MakeBench, behaving
from tests.rebuilder.corruption_reports import report_corruption, rot, state_of


@pytest.fixture
def built(make_bench: MakeBench) -> Bench:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    return bench


def test_what_a_reader_found_corrupt_is_found_here_and_built_again(built: Bench) -> None:
    rot(built)
    built.rebuilder.step()
    assert built.release().number == 1
    report_corruption(built)
    result = built.rebuilder.step()
    assert result is not None
    assert result.indexes_rebuilt == ("index",)
    assert built.release().number == 2
    built.store.open_version("index", built.release().components["index"])


def test_what_is_whole_is_hashed_once_for_each_report_and_not_built_again(built: Bench) -> None:
    (ref, *_) = built.store.version("index", built.release().components["index"]).files.values()
    (mark,) = built.store.root.glob(f"checked/*/{ref.digest}")
    clock = FakeClock(built.release().created_at)
    doubts = CorruptionReports(built.store, clock)
    doubts.take({"web": state_of(built, "web", "no memory")})
    assert not mark.exists()
    assert built.rebuilder.step() is None
    assert mark.exists()
    doubts.take({name: state_of(built, name, "no memory") for name in ("web", "other")})
    assert mark.exists()
    doubts.take({})
    clock.advance(60)
    doubts.take({"web": state_of(built, "web", "no memory"), "newer": None})
    assert not mark.exists()
    assert built.release().number == 1


def test_reports_in_other_words_each_time_are_checked_less_and_less_often(built: Bench) -> None:
    clock = FakeClock(built.release().created_at)
    doubts = CorruptionReports(built.store, clock)
    looked_at = []
    for second in range(0, 4 * 3600, 5):  # a heartbeat
        if doubts.take({"web": state_of(built, "web", f"at {second} s")}):
            looked_at.append(second)
        clock.advance(5)
    assert looked_at[:5] == [0, 60, 180, 420, 900]
    assert looked_at[-1] - looked_at[-2] == 3600


def test_a_report_that_came_too_soon_is_checked_when_its_time_comes(built: Bench) -> None:
    clock = FakeClock(built.release().created_at)
    doubts = CorruptionReports(built.store, clock)
    assert doubts.take({"web": state_of(built, "web", "no memory")})
    corrupt = {"web": state_of(built, "web", "BlobCorruptError")}
    assert not doubts.take(corrupt)
    clock.advance(60)
    assert doubts.take(corrupt)
    assert not doubts.take(corrupt)


def test_only_what_is_released_is_looked_at(built: Bench) -> None:
    doubts = CorruptionReports(built.store, FakeClock(built.release().created_at))
    state = state_of(built, "web", "BlobCorruptError")
    component = state.components["index"]
    for name, wanted in (("index", "0" * 64), ("other", component.wanted)):
        made_up = component.model_copy(update={"wanted": wanted})
        assert not doubts.take({"web": state.model_copy(update={"components": {name: made_up}})})
