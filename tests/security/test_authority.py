"""Whoever can add to a stream has no say in what is built: an event says "look now" and no more."""

from typing import Any

import pytest

from indexrelay.rebuilder.dead_letters import RetryOutcome, retry_dead_letter
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import BatchCompleted, Event, EventData, RebuildRequested
from tests.rebuilder.conftest import Bench, MakeBench, behaving

CLOCK = SystemClock()


def added(bench: Bench, data: EventData, *, event_id: str | None = None) -> bytes:
    """Add an event as whoever may do so, by a bare XADD; its bytes."""
    raw = Event.of(data, source="hostile", time=CLOCK.now(), id=event_id).to_bytes()
    bench.connection.commands.xadd(bench.keys.events, {"event": raw})
    return raw


def asking(**wish: Any) -> RebuildRequested:
    return RebuildRequested(request_id="forged", **wish)


@pytest.fixture
def shrunken(make_bench: MakeBench) -> Bench:
    """A bench whose next version is not to be released, since it lost three of four entries."""
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a", "b", "c", "d")
    bench.rebuild()
    bench.commit(deletes=("a", "b", "c"))
    return bench


@pytest.mark.parametrize("components", [(), ("index",)])
def test_force_in_an_event_does_not_let_anything_shrink(
    shrunken: Bench, components: tuple[str, ...]
) -> None:
    added(shrunken, asking(components=components, force=True))
    assert shrunken.rebuild().indexes_failed == ("index",)
    assert shrunken.release().number == 1
    assert shrunken.catalog.inbox.open() == []
    shrunken.catalog.inbox.request("r1", components=("index",), force=True, reason="it is right")
    assert shrunken.rebuild().components["index"].entries == 1


@pytest.mark.parametrize("components", [(), ("index",)])
def test_full_and_names_in_an_event_build_nothing_that_is_not_due(
    make_bench: MakeBench, components: tuple[str, ...]
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    added(bench, asking(components=components, full=True))
    result = bench.rebuild()
    assert (result.message, result.indexes_rebuilt) == ("Nothing was due", ())
    assert result.request_ids == ()


@pytest.mark.parametrize("components", [(), ("index",)])
def test_what_is_due_is_built_as_if_the_event_had_said_nothing(
    shrunken: Bench, components: tuple[str, ...]
) -> None:
    added(shrunken, asking(components=components, full=True, force=True))
    shrunken.rebuilder._intake.take(block_seconds=0)
    order = shrunken.rebuilder._scheduler.next_order(woken_at=None)
    assert order is not None
    assert set(order.reasons) == {"index"}
    assert (order.force, order.full, order.refused) == (frozenset(), frozenset(), {})


def test_names_in_an_event_do_not_build_what_a_person_paused(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    bench.catalog.attempts.pause("index", "not now")
    bench.commit("b")
    added(bench, asking(components=("index",)))
    bench.rebuilder.step()
    assert bench.release().number == 1


def test_an_unknown_name_in_an_event_is_told_to_nobody(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    added(bench, asking(components=("nonsense",)))
    assert bench.rebuild().message == "Successfully rebuilt 1 index(es)"


def test_an_event_that_came_before_a_request_of_its_id_does_not_keep_it_out(
    shrunken: Bench,
) -> None:
    """Whoever can foresee an id (a schedule's) could otherwise take its place."""
    added(shrunken, asking(), event_id="nightly-2026-01-01")
    shrunken.rebuilder.step()
    shrunken.catalog.inbox.request(
        "nightly-2026-01-01", components=("index",), force=True, reason="every night"
    )
    assert shrunken.rebuild().components["index"].entries == 1


def test_an_event_does_not_change_a_request_of_its_id(shrunken: Bench) -> None:
    shrunken.catalog.inbox.request("r1", components=("index",), force=False, reason="")
    added(shrunken, asking(components=("index",), force=True), event_id="r1")
    shrunken.rebuilder.step()
    assert shrunken.release().number == 1


def test_a_dead_letter_that_is_read_again_has_no_authority_either(shrunken: Bench) -> None:
    event = Event.of(asking(components=("index",), force=True), source="hostile", time=CLOCK.now())
    letter = shrunken.catalog.dead_letters.add(
        stream=shrunken.keys.events, entry_id="1-0", raw=event.to_bytes(), reason="too new"
    )
    again = retry_dead_letter(letter, catalog=shrunken.catalog, clock=CLOCK)
    assert again.outcome is RetryOutcome.RECEIVED
    shrunken.rebuilder.step()
    assert shrunken.release().number == 1


def test_nothing_that_a_completed_batch_says_is_believed(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    for said in (
        BatchCompleted(collection="tracks", epoch="forged", batch_id="b", generation=2**63 - 1),
        BatchCompleted(collection="nonsense", epoch="e", batch_id="b", generation=1, upserts=10**9),
        BatchCompleted(collection="tracks", epoch="e", batch_id="b", generation=0, deletes=10**9),
    ):
        added(bench, said)
    result = bench.rebuild()
    assert (result.message, result.batch_ids) == ("Nothing was due", ())
    assert bench.release().number == 1
    assert bench.catalog.collections.get("tracks").generation == 1
