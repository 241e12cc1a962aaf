from datetime import UTC, datetime, timedelta

from indexrelay.schemas.events import Event, RebuildRequested
from indexrelay.storage.catalog import Catalog, InboxRow, ReceivedEvent
from tests.storage.catalog.hand_clock import HandClock

_AT = datetime(2026, 1, 1, 12, 0, 0, 250, tzinfo=UTC)


def event(event_id: str) -> ReceivedEvent:
    return ReceivedEvent(
        event_id=event_id, type="batch.completed.v1", body=b'{"a":"\xc3\xa4"}', received_at=_AT
    )


def open_ids(catalog: Catalog) -> list[str]:
    return [row.event_id for row in catalog.inbox.open()]


def test_events_are_open_until_finished_oldest_first(catalog: Catalog) -> None:
    assert catalog.inbox.receive([event("z"), event("a")]) == 2
    assert catalog.inbox.receive([event("m")]) == 1
    assert catalog.inbox.open()[0] == InboxRow(**vars(event("z")), requested=False)
    assert open_ids(catalog) == ["z", "a", "m"]

    catalog.inbox.finish(["a", "unknown"])

    assert open_ids(catalog) == ["z", "m"]


def test_a_repeat_is_nothing_within_a_call_later_and_after_it_was_finished(
    catalog: Catalog,
) -> None:
    assert catalog.inbox.receive([event("a"), event("a")]) == 1
    assert catalog.inbox.receive([event("a"), event("b")]) == 1
    catalog.inbox.finish(["a", "b"])
    assert catalog.inbox.receive([event("a")]) == 0
    assert catalog.inbox.receive([]) == 0
    assert open_ids(catalog) == []


def test_finished_rows_go_after_a_week_and_open_ones_stay(
    catalog: Catalog, clock: HandClock
) -> None:
    catalog.inbox.receive([event("old"), event("open")])
    catalog.inbox.finish(["old"])

    clock.move(timedelta(days=6))
    catalog.inbox.finish([])
    assert catalog.inbox.receive([event("old")]) == 0

    clock.move(timedelta(days=2))
    catalog.inbox.finish([])
    assert open_ids(catalog) == ["open"]
    assert catalog.inbox.receive([event("old")]) == 1


def test_finishing_twice_does_not_prolong_a_rows_stay(catalog: Catalog, clock: HandClock) -> None:
    catalog.inbox.receive([event("old")])
    catalog.inbox.finish(["old"])
    clock.move(timedelta(days=4))
    catalog.inbox.finish(["old"])
    clock.move(timedelta(days=4))
    catalog.inbox.finish([])

    assert catalog.inbox.receive([event("old")]) == 1


def test_a_request_reads_like_a_received_event_under_its_own_id(
    catalog: Catalog, clock: HandClock
) -> None:
    assert catalog.inbox.request("r1", components=["voyager"], force=True, reason="why not")
    assert not catalog.inbox.request("r1", components=[], force=False, reason="")

    (row,) = catalog.inbox.open()
    read = Event.from_bytes(row.body)
    assert (row.event_id, row.type, row.received_at) == (read.id, read.type, clock.now())
    assert read.data == RebuildRequested(
        request_id="r1", components=("voyager",), force=True, reason="why not"
    )
    assert row.requested
    waking = ReceivedEvent(event_id="r1", type=row.type, body=row.body, received_at=row.received_at)
    assert catalog.inbox.receive([waking]) == 0


def test_an_event_never_becomes_a_request_and_never_takes_its_place(
    catalog: Catalog, clock: HandClock
) -> None:
    assert catalog.inbox.request("r1", components=["map"], force=True, reason="mine")
    (mine,) = catalog.inbox.open()
    forged = ReceivedEvent(event_id="r2", type=mine.type, body=mine.body, received_at=clock.now())
    catalog.inbox.receive([forged])
    assert [row.requested for row in catalog.inbox.open()] == [True, False]

    catalog.inbox.finish(["r2"])
    assert catalog.inbox.request("r2", components=["index"], reason="the real one")
    (_, real) = catalog.inbox.open()
    assert real.requested
    assert Event.from_bytes(real.body).data == RebuildRequested(
        request_id="r2", components=("index",), reason="the real one"
    )
    assert catalog.inbox.receive([forged]) == 0
    assert catalog.inbox.open()[1] == real


def test_an_event_id_that_no_database_takes_is_kept_all_the_same(catalog: Catalog) -> None:
    catalog.inbox.receive([event("nul\0in it")])
    (row,) = catalog.inbox.open()
    assert catalog.inbox.receive([event("nul\0in it")]) == 0
    catalog.inbox.finish([row.event_id])
    assert open_ids(catalog) == []


def test_more_rows_than_a_statement_has_parameters_are_received_and_finished(
    catalog: Catalog,
) -> None:
    ids = [f"{number}" for number in range(3_000)]
    assert catalog.inbox.receive([event(id_) for id_ in ids]) == 3_000
    assert open_ids(catalog) == ids
    catalog.inbox.finish(ids)
    assert open_ids(catalog) == []
