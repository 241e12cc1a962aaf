"""What becomes of the numbers when the artifact store has lost releases."""

import shutil

import pytest

from indexrelay.health.status import Code
from indexrelay.rebuilder.reconciler import Finding, Reconciler, RepairOutcome
from indexrelay.schemas.messages import ComponentState, LoadOutcome
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.streams import current_release
from indexrelay.testing.clock import FakeClock
from tests.rebuilder.conftest import Bench, MakeBench, behaving
from tests.rebuilder.test_reconciler import be_there, reconciler, serve, told

LONG = 61.0
"""More than two of the reconcile loop's pauses."""


def numbers(reconciling: Reconciler) -> list[Finding]:
    return [each for each in reconciling.reconcile().findings if each.about == "release"]


def announced(bench: Bench) -> int:
    return current_release(bench.connection, bench.keys)


def wipe(bench: Bench) -> None:
    """Lose every file, and start again in the same place."""
    shutil.rmtree(bench.settings.artifacts_dir)
    bench.store = ArtifactStore(bench.settings.artifacts_dir)
    bench.rebuilder.stop()
    bench.rebuilder = bench.another()


@pytest.fixture
def wiped(make_bench: MakeBench) -> Bench:
    """Release 3 was announced; then all was lost, and built again as release 1."""
    bench = make_bench(index=behaving("tracks"))
    for name in ("a", "b", "c"):
        bench.commit(name)
        bench.rebuild()
    wipe(bench)
    bench.rebuild()
    assert (bench.release().number, announced(bench)) == (1, 3)
    return bench


def test_what_a_wiped_store_builds_goes_on_above_the_numbers_that_were_lost(wiped: Bench) -> None:
    clock = FakeClock()
    reconciling = reconciler(wiped, clock)
    be_there(wiped)
    [waiting] = numbers(reconciling)
    assert waiting.outcome is RepairOutcome.WAITING
    assert waiting.what == "release 3 was announced or is served, and the store's newest is 1"
    before = wiped.release()
    clock.advance(LONG)
    mended, told = numbers(reconciling)
    assert {mended.outcome, told.outcome} == {RepairOutcome.REPAIRED}
    after = wiped.release()
    assert (after.number, after.previous, announced(wiped)) == (4, 1, 4)
    assert after.components == before.components
    assert numbers(reconciling) == []
    wiped.commit("d")
    wiped.rebuild()
    assert (wiped.release().number, announced(wiped)) == (5, 5)


def test_a_store_that_only_lags_behind_for_a_while_keeps_its_numbers(wiped: Bench) -> None:
    clock = FakeClock()
    reconciling = reconciler(wiped, clock)
    numbers(reconciling)
    clock.advance(LONG / 2)
    numbers(reconciling)
    wiped.connection.commands.set(wiped.keys.release, 1)  # it has caught up
    assert numbers(reconciling) == []
    wiped.connection.commands.set(wiped.keys.release, 3)
    clock.advance(LONG / 2)
    numbers(reconciling)
    assert wiped.release().number == 1


def test_a_store_that_cannot_be_read_changes_nothing(wiped: Bench) -> None:
    clock = FakeClock()
    reconciling = reconciler(wiped, clock)
    numbers(reconciling)
    clock.advance(LONG)
    releases = wiped.settings.artifacts_dir / "releases"
    releases.rename(releases.with_name("away"))
    findings = reconciling.reconcile().findings
    assert {each.about for each in findings} == {"store"}
    assert announced(wiped) == 3
    releases.with_name("away").rename(releases)
    assert wiped.release().number == 1


def test_an_empty_store_waits_until_something_is_built(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.catalog.release_record.note(7)
    bench.connection.commands.set(bench.keys.release, 7)
    clock = FakeClock()
    reconciling = reconciler(bench, clock)
    numbers(reconciling)
    clock.advance(LONG)
    [waiting] = numbers(reconciling)
    assert waiting.outcome is RepairOutcome.LEFT  # nobody is there to build
    assert "once something is built" in waiting.advice
    assert "indexrelay rebuilder" in waiting.advice
    assert bench.store.newest_release() is None


@pytest.mark.parametrize(("generation", "renumbered"), [(4, False), (3, True)])
def test_no_reader_is_taken_back_to_an_earlier_generation(
    wiped: Bench, generation: int, renumbered: bool
) -> None:
    epochs = {"tracks": wiped.catalog.collections.get("tracks").epoch}
    wiped.commit("d")  # and not built yet
    served = ComponentState(
        outcome=LoadOutcome.APPLIED, covers={"tracks": generation}, epochs=epochs
    )
    serve(wiped, release=3, components={"index": served})
    clock = FakeClock()
    reconciling = reconciler(wiped, clock)
    numbers(reconciling)
    clock.advance(LONG)
    found = numbers(reconciling)
    assert wiped.release().number == (4 if renumbered else 1), found
    assert renumbered or "what web serves" in found[0].advice


def test_readers_show_lost_releases_where_redis_was_wiped_as_well(wiped: Bench) -> None:
    wiped.connection.commands.flushall()
    clock = FakeClock()
    reconciling = reconciler(wiped, clock)
    serve(wiped, release=3, components={})
    numbers(reconciling)
    clock.advance(LONG)
    numbers(reconciling)
    assert (wiped.release().number, announced(wiped)) == (4, 4)


@pytest.mark.parametrize("number", [4, 10**9, 10**11])
def test_a_number_that_was_never_committed_and_that_nobody_serves_is_replaced(
    wiped: Bench, number: int
) -> None:
    wiped.connection.commands.set(wiped.keys.release, number)
    assert told(wiped, Code.RELEASE_MADE_UP) is not None
    removed, told_again = numbers(reconciler(wiped))
    assert {removed.outcome, told_again.outcome} == {RepairOutcome.REPAIRED}
    assert "none" not in removed.what
    assert "was removed" in removed.what
    assert (wiped.release().number, announced(wiped)) == (1, 1)
    assert told(wiped, Code.RELEASE_MADE_UP) is None


@pytest.mark.parametrize("key", [None, 900])
def test_a_reader_that_makes_up_a_release_uses_up_no_number_and_is_reported(
    wiped: Bench, key: int | None
) -> None:
    """Else it could push the releases out that are kept to roll back to, one a minute."""
    wiped.connection.commands.set(wiped.keys.release, key or 1)
    serve(wiped, release=900, components={})
    clock = FakeClock()
    reconciling = reconciler(wiped, clock)
    for _ in range(5):
        assert numbers(reconciling) == []
        clock.advance(LONG)
    assert wiped.release().number == 1
    problem = told(wiped, Code.RELEASE_MADE_UP)
    assert problem is not None
    assert problem.what == (
        "reader web (h:1) says that it serves release 900, and none above 3 was ever committed here"
    )
    assert "indexrelay reconcile --above 900" in problem.advice


def test_a_reader_delays_nothing_by_generations_that_were_never_committed(wiped: Bench) -> None:
    epochs = {"tracks": wiped.catalog.collections.get("tracks").epoch}
    served = ComponentState(outcome=LoadOutcome.APPLIED, covers={"tracks": 2**60}, epochs=epochs)
    serve(wiped, release=3, components={"index": served})
    clock = FakeClock()
    reconciling = reconciler(wiped, clock)
    numbers(reconciling)
    clock.advance(LONG)
    numbers(reconciling)
    assert wiped.release().number == 4


def test_the_highest_number_is_known_from_the_moment_it_is_committed(wiped: Bench) -> None:
    record = wiped.catalog.release_record
    assert record.highest() == 3  # of the third pass, and not of the store that was wiped
    assert (record.note(2), record.highest()) == (3, 3)
    wiped.store.hold("index", reason="by hand")
    wiped.store.lift("index", reason="by hand")
    wiped.store.hold("index", reason="by hand")
    numbers(reconciler(wiped))
    assert record.highest() == 4
