"""A quick version first, and a better one behind it: when, beside what, and what becomes of it."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from indexrelay.health.judge import judge
from indexrelay.health.status import Condition, Verdict
from indexrelay.health.survey import Survey
from indexrelay.rebuilder import Rebuilder
from indexrelay.rebuilder.improver import BackgroundImprovements
from indexrelay.schemas.messages import RebuilderState, RebuildStatus
from indexrelay.schemas.versions import VersionManifest
from indexrelay.streams import members_of
from indexrelay.testing import FakeClock
from tests.rebuilder import kinds
from tests.rebuilder.conftest import Bench, MakeBench, behaving

IMPROVING = "tests.rebuilder.kinds:Improving"


def improving(**keys: Any) -> dict[str, Any]:
    return {"kind": IMPROVING, "from": ["tracks"], **keys}


def step(bench: Bench, rebuilder: Rebuilder | None = None) -> Any:
    """A pass as the loop runs it."""
    return (rebuilder or bench.rebuilder).step(quick=True)


def served(bench: Bench, component: str = "index") -> VersionManifest:
    return bench.opened(component).manifest


def state(bench: Bench, component: str = "index") -> tuple[str, int]:
    """How good the served version is, and what it covers."""
    manifest = served(bench, component)
    return manifest.details["quality"], manifest.covers["tracks"]


def ids(bench: Bench) -> list[str]:
    found: list[str] = json.loads(bench.opened("index").files["ids.json"].read_text())
    return found


def verdict(bench: Bench) -> Verdict:
    """What the judge says of everything."""
    survey = Survey.opened(
        bench.settings,
        catalog=bench.catalog,
        store=bench.store,
        connection=bench.connection,
        clock=bench.rebuilder._clock,
    )
    return judge(survey.whole())


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Lets something happen while an improvement is built."""

    def let(act: Callable[[], None]) -> None:
        monkeypatch.setattr(kinds.Improving, "during_improvements", staticmethod(act))

    return let


def test_a_quick_version_is_released_first_and_a_better_one_of_the_same_generation_next(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=improving())
    bench.commit("x")
    assert step(bench).release == 1
    assert state(bench) == ("quick", 1)
    assert step(bench) is None  # nobody is behind
    assert bench.rebuilder.improve()
    assert bench.release().number == 1  # it is released by a pass
    result = step(bench)
    assert (result.status, result.release) == (RebuildStatus.SUCCESS, 2)
    assert state(bench) == ("best", 1)
    assert not bench.rebuilder.improve()
    assert step(bench) is None


def test_single_passes_and_requests_for_a_full_build_make_the_best_at_once(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=improving())
    bench.commit("x")
    bench.rebuild()
    assert state(bench) == ("best", 1)
    bench.catalog.inbox.request("r1", components=("index",), full=True, reason="")
    step(bench)
    assert state(bench) == ("best", 1)
    assert not bench.rebuilder.improve()


def test_a_full_build_is_made_from_scratch_although_an_improvement_is_built(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=improving())
    bench.commit("x")
    step(bench)
    assert bench.rebuilder.improve()
    bench.commit("y")
    bench.catalog.inbox.request("r1", components=("index",), full=True, reason="")
    assert step(bench).request_ids == ("r1",)
    assert (state(bench), served(bench).details["base"]) == (("best", 2), 2)
    assert step(bench) is None


def test_a_component_that_cannot_be_improved_is_built_once(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("x")
    step(bench)
    assert not bench.rebuilder.improve()
    assert step(bench) is None


def test_batches_are_released_while_an_improvement_is_built_and_it_contains_them_at_last(
    make_bench: MakeBench, meanwhile: Callable[[Callable[[], None]], None]
) -> None:
    bench = make_bench(index=improving())
    bench.commit("x")
    step(bench)

    def commit_and_release() -> None:
        bench.commit("y", deletes=("x",))
        assert step(bench).indexes_rebuilt == ("index",)
        assert (state(bench), ids(bench)) == (("quick", 2), ["y"])
        assert "index" in {*bench.rebuilder._improver.improving}

    meanwhile(commit_and_release)
    assert bench.rebuilder.improve()
    assert step(bench).release == 3
    assert (state(bench), ids(bench)) == (("best", 2), ["y"])
    assert served(bench).details["base"] == 1  # the improvement was continued, not built again


def test_a_stream_without_a_pause_neither_waits_for_improvements_nor_voids_them(
    make_bench: MakeBench, meanwhile: Callable[[Callable[[], None]], None]
) -> None:
    bench = make_bench(index=improving())
    clock = FakeClock()
    rebuilder = bench.another("streaming")
    rebuilder._clock = clock
    committed: list[str] = []

    def batches(count: int) -> None:
        """Each is released by the pass that follows it, whatever else is going on."""
        for _ in range(count):
            clock.advance(0.2)
            bench.commit(id_ := f"t{len(committed):03d}")
            committed.append(id_)
            assert step(bench, rebuilder).indexes_rebuilt == ("index",)
            assert ids(bench) == committed

    batches(1)
    meanwhile(lambda: batches(40))  # more than the store's newest versions that are looked at
    assert rebuilder.improve()
    assert state(bench)[0] == "quick"
    batches(1)
    assert state(bench) == ("best", len(committed))
    assert served(bench).details["base"] == 1
    batches(5)
    assert state(bench) == ("best", len(committed))
    assert not rebuilder.improve()


def test_an_improvement_that_fails_is_backed_off_and_fails_no_component(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=improving(fails="improvement"))
    bench.commit("x")
    step(bench)
    assert not bench.rebuilder.improve()
    assert not bench.catalog.attempts.all()
    failed = bench.catalog.improvements.all()["index"]
    assert failed.failures == 1
    assert "no improvement today" in failed.error
    bench.commit("y")  # a new batch is no reason to try again
    assert step(bench).status is RebuildStatus.SUCCESS
    assert not bench.rebuilder.improve()
    assert bench.catalog.improvements.all()["index"].failures == 1
    found = verdict(bench)
    health = found.components["index"]
    assert health.condition is Condition.CURRENT
    assert not [problem for problem in found.problems if problem.subject == "index"]
    assert health.improvement is not None
    assert health.improvement.retry_at is not None
    (note,) = [each for each in found.notes if "index serves" in each]
    assert "that failed 1 time(s) in a row: ValueError" in note
    assert "it is tried again at" in note


def test_an_improvement_that_is_no_better_is_not_released(make_bench: MakeBench) -> None:
    bench = make_bench(index=improving(gate_fails="improvement"))
    bench.commit("x")
    step(bench)
    assert not bench.rebuilder.improve()
    assert step(bench) is None
    assert state(bench) == ("quick", 1)
    assert "no better than before" in bench.catalog.improvements.all()["index"].error


@pytest.mark.parametrize("keys", [{"fails": "catch_up"}, {"gate_fails": "catch_up"}])
def test_an_improvement_that_cannot_be_continued_is_given_up_and_holds_up_no_batch(
    make_bench: MakeBench, keys: dict[str, str]
) -> None:
    bench = make_bench(index=improving(**keys))
    bench.commit("x")
    step(bench)
    assert bench.rebuilder.improve()
    bench.commit("y")
    result = step(bench)
    assert (result.status, result.indexes_rebuilt) == (RebuildStatus.SUCCESS, ("index",))
    assert (state(bench), ids(bench)) == (("quick", 2), ["x", "y"])
    assert not bench.catalog.attempts.all()
    assert bench.catalog.improvements.all()["index"].failures == 1
    assert step(bench) is None
    assert not bench.rebuilder.improve()  # not before its cool-down is over


def test_an_improvement_that_met_a_full_disk_is_taken_up_after_a_cool_down(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(index=improving(full_disk="catch_up"))
    bench.commit("x")
    step(bench)
    assert bench.rebuilder.improve()
    for generation in (2, 3):
        bench.commit(f"y{generation}")
        assert step(bench).status is RebuildStatus.SUCCESS
        assert state(bench) == ("quick", generation)
    assert bench.catalog.improvements.all()["index"].failures == 1  # batches go on without it
    assert not bench.rebuilder.improve()
    bench.catalog.improvements.succeeded("index")  # as after the cool-down
    build = kinds.Improving.build
    monkeypatch.setattr(
        kinds.Improving,
        "build",
        lambda kind, job: build(type(kind)(kinds.ImprovingParameters()), job),
    )
    assert step(bench) is not None
    assert (state(bench), served(bench).details["base"]) == (("best", 3), 1)


def test_an_improvement_that_lags_too_far_behind_leaves_what_serves_as_it_is(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=improving(continued_from=2))
    bench.commit("x")
    step(bench)
    assert bench.rebuilder.improve()  # at generation 1
    bench.commit("y")
    step(bench)  # neither of the two can be continued: a quick version of generation 2
    assert (state(bench), served(bench).details["base"]) == (("quick", 2), 2)
    assert step(bench) is None
    bench.catalog.improvements.succeeded("index")  # as after the cool-down
    assert bench.rebuilder.improve()
    step(bench)
    assert (state(bench), served(bench).details["base"]) == (("best", 2), 2)


def test_what_is_paused_or_held_is_not_improved_until_that_ends(make_bench: MakeBench) -> None:
    bench = make_bench(index=improving())
    bench.commit("x")
    step(bench)
    bench.catalog.attempts.pause("index", "quiet")
    assert not bench.rebuilder.improve()
    assert any("not yet, since it is paused (quiet)" in note for note in verdict(bench).notes)
    bench.catalog.attempts.resume("index")
    bench.store.hold("index", reason="look")
    assert not bench.rebuilder.improve()
    bench.store.lift("index", reason="looked")
    assert bench.rebuilder.improve()
    bench.catalog.attempts.pause("index", "again")
    assert step(bench) is None  # what is built waits
    bench.catalog.attempts.resume("index")
    assert step(bench) is not None
    assert state(bench) == ("best", 1)


def test_an_improvement_is_built_by_one_rebuilder_and_released_by_any(
    make_bench: MakeBench, meanwhile: Callable[[Callable[[], None]], None]
) -> None:
    bench = make_bench(index=improving())
    other = bench.another("other")
    bench.commit("x")
    step(bench)
    tried: list[bool] = []
    meanwhile(lambda: tried.append(other.improve()))
    assert bench.rebuilder.improve()
    assert tried == [False]
    restarted = bench.another("restarted")
    assert not restarted.improve()  # it finds the one that is built
    assert step(bench, restarted) is not None
    assert state(bench) == ("best", 1)
    assert step(bench) is None


def test_an_improvement_of_one_member_leaves_its_group_whole(make_bench: MakeBench) -> None:
    bench = make_bench(
        index=improving(group="g"), other=behaving("tracks", group="g"), child=behaving("index")
    )
    bench.commit("x")
    step(bench)
    before = bench.release().components
    assert bench.rebuilder.improve()
    assert set(step(bench).indexes_rebuilt) == {"index", "child"}
    after = bench.release().components
    assert after["other"] == before["other"]
    assert state(bench) == ("best", 1)
    assert served(bench, "child").parents == {"index": after["index"]}
    bench.commit("y")
    step(bench)
    assert {served(bench, name).covers["tracks"] for name in ("index", "other")} == {2}


def test_a_member_that_waits_for_its_group_is_not_improved_meanwhile(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=improving(group="g"), other=behaving("tracks", group="g"))
    bench.commit("x")
    step(bench)
    bench.store.hold("other", reason="look")
    bench.commit("y")
    assert not bench.rebuilder.improve()  # it would cover what cannot be released
    bench.store.lift("other", reason="looked")
    assert bench.rebuilder.improve()
    step(bench)
    assert state(bench) == ("best", 2)


def test_a_rolled_back_improvement_does_not_come_back_by_itself(make_bench: MakeBench) -> None:
    bench = make_bench(index=improving())
    bench.commit("x")
    step(bench)
    assert bench.rebuilder.improve()
    step(bench)
    improved = bench.release().components["index"]
    bench.store.rollback(1, reason="it was worse")
    assert not bench.rebuilder.improve()
    assert step(bench) is None
    bench.store.lift("index", reason="once more")
    assert step(bench) is None
    assert bench.rebuilder.improve()
    step(bench)
    assert state(bench) == ("best", 1)
    assert bench.release().components["index"] != improved


def test_a_changed_definition_voids_what_was_built_to_improve_the_last_one(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=improving())
    bench.commit("x")
    step(bench)
    assert bench.rebuilder.improve()
    changed = bench.another("changed", components={"index": improving(continued_from=0)})
    assert not changed.improve()
    assert step(bench, changed) is not None
    assert state(bench) == ("quick", 1)
    assert step(bench, changed) is None
    assert changed.improve()


def test_presence_and_verdict_say_what_is_improved(
    make_bench: MakeBench, meanwhile: Callable[[Callable[[], None]], None]
) -> None:
    bench = make_bench(index=improving())
    bench.commit("x")
    step(bench)
    found: list[Verdict] = []

    def look() -> None:
        bench.rebuilder._publish_presence()
        found.append(verdict(bench))

    meanwhile(look)
    assert bench.rebuilder.improve()
    (state_of_rebuilder,) = members_of(bench.connection, bench.keys, RebuilderState).known.values()
    assert state_of_rebuilder.improving == ("index",)
    health = found[0].components["index"]
    assert health.improvement is not None
    assert len(health.improvement.building) == 1
    assert health.condition is Condition.CURRENT
    assert not health.building
    (note,) = [each for each in found[0].notes if "index serves" in each]
    assert "it was made quickly; rebuilder" in note


def test_an_improvement_waits_for_other_builds_but_not_for_ever() -> None:
    improver: Any = SimpleNamespace(improving=(), begin=lambda: None)
    background = BackgroundImprovements(improver, changed=lambda: None, built=lambda: None)
    assert background.free(100.0, busy=False)
    assert not background.free(100.5, busy=False)  # it has just been asked
    assert not background.begin()
    assert not background.free(110.0, busy=True)
    assert not background.free(169.9, busy=True)
    assert background.free(170.0, busy=True)
    assert not background.begin()
    assert not background.free(172.0, busy=True)  # the next one waits as long
    assert background.free(173.0, busy=False)
    improver.improving = ("index",)
    assert not background.free(999.0, busy=False)
    background.stop()
