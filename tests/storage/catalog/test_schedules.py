from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier

import pytest

from indexrelay.schemas.messages import RebuildRequested
from indexrelay.storage.catalog import Catalog, inbox
from indexrelay.storage.errors import TooManyRequestsError
from indexrelay.testing import FakeClock

HOUR = timedelta(hours=1)


def fire(catalog: Catalog, slot: datetime, *, definition: str = "a") -> bool:
    return catalog.schedules.fire(
        "weekly",
        definition=definition,
        slot=slot,
        request=RebuildRequested(request_id=f"schedule/weekly/{slot:%H:%M}"),
        next_at=slot + HOUR,
    )


def test_of_operators_that_decide_at_once_one_makes_the_request(
    url: str, catalog: Catalog, clock: FakeClock
) -> None:
    catalog.schedules.begin("weekly", definition="a", next_at=clock.now() + HOUR)
    catalogs = [Catalog.open(url, clock=clock) for _ in range(4)]
    together = Barrier(4)

    def decide(own: Catalog) -> list[bool]:
        fired = []
        for hour in range(1, 6):
            together.wait(20)
            fired.append(fire(own, clock.now() + hour * HOUR))
        own.close()
        return fired

    with ThreadPoolExecutor(4) as pool:
        decided = list(pool.map(decide, catalogs))

    assert [sum(each) for each in zip(*decided, strict=True)] == [1] * 5
    assert len(catalog.inbox.open_requests()) == 5


def test_a_slot_before_the_one_that_was_decided_on_makes_no_request(
    catalog: Catalog, clock: FakeClock
) -> None:
    start = clock.now()
    catalog.schedules.begin("weekly", definition="a", next_at=start + HOUR)
    assert not fire(catalog, start)
    assert fire(catalog, start + 2 * HOUR)
    assert not fire(catalog, start + HOUR)
    assert not catalog.schedules.miss(
        "weekly", definition="a", slot=start + 2 * HOUR, next_at=start
    )
    assert catalog.schedules.miss(
        "weekly", definition="a", slot=start + 3 * HOUR, next_at=start + 9 * HOUR
    )
    state = catalog.schedules.all()["weekly"]
    assert (state.slot, state.missed) == (start + 2 * HOUR, start + 3 * HOUR)
    assert (state.decided, state.next_at) == (start + 3 * HOUR, start + 9 * HOUR)


def test_another_definition_takes_the_schedule_over_and_the_same_one_goes_on(
    catalog: Catalog, clock: FakeClock
) -> None:
    start = clock.now()
    catalog.schedules.begin("weekly", definition="a", next_at=start + HOUR)
    fire(catalog, start + HOUR)
    clock.advance(7200)
    same = catalog.schedules.begin("weekly", definition="a", next_at=start)
    assert (same.decided, same.next_at) == (start + HOUR, start + 2 * HOUR)

    taken = catalog.schedules.begin("weekly", definition="b", next_at=start + 5 * HOUR)

    assert (taken.decided, taken.definition) == (start + 2 * HOUR, "b")
    assert taken.slot == start + HOUR  # what came of it is still shown
    assert not fire(catalog, start + 4 * HOUR, definition="a")
    assert fire(catalog, start + 4 * HOUR, definition="b")


def test_a_slot_stays_undecided_while_there_are_too_many_requests(
    catalog: Catalog, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MAX_OPEN_REQUESTS", 1)
    catalog.schedules.begin("weekly", definition="a", next_at=clock.now())
    catalog.inbox.request("r", components=[], reason="first")
    slot = clock.now() + HOUR
    with pytest.raises(TooManyRequestsError):
        fire(catalog, slot)
    catalog.inbox.finish(["r"])
    assert fire(catalog, slot)
