from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from indexrelay.schemas.messages import Event, RebuildRequested, RebuildResult, RebuildStatus
from indexrelay.storage.catalog import Answer, Catalog, InboxRow, ReceivedEvent
from indexrelay.storage.errors import RequestCoveredError, TooManyRequestsError
from indexrelay.testing import FakeClock

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
    # What an event said counts for nothing, so its bytes stay where they are.
    assert catalog.inbox.open()[0] == InboxRow(
        **event("z")._replace(body=b"")._asdict(), requested=False
    )
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
    catalog: Catalog, clock: FakeClock
) -> None:
    catalog.inbox.receive([event("old"), event("open")])
    catalog.inbox.finish(["old"])

    clock.advance(6 * 86_400)
    catalog.inbox.finish([])
    assert catalog.inbox.receive([event("old")]) == 0

    clock.advance(2 * 86_400)
    catalog.inbox.finish([])
    assert open_ids(catalog) == ["open"]
    assert catalog.inbox.receive([event("old")]) == 1


def test_finishing_twice_does_not_prolong_a_rows_stay(catalog: Catalog, clock: FakeClock) -> None:
    catalog.inbox.receive([event("old")])
    catalog.inbox.finish(["old"])
    clock.advance(4 * 86_400)
    catalog.inbox.finish(["old"])
    clock.advance(4 * 86_400)
    catalog.inbox.finish([])

    assert catalog.inbox.receive([event("old")]) == 1


def test_a_request_reads_like_a_received_event_under_its_own_id(
    catalog: Catalog, clock: FakeClock
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


@pytest.mark.parametrize(
    ("known", "asked", "covered"),
    [
        ({}, {}, True),
        ({"components": ["a", "b"]}, {"components": ["b"]}, True),
        ({"components": ["a"]}, {"components": ["a", "b"]}, False),
        ({}, {"components": ["a"]}, False),  # it is built if it is due
        ({"components": ["a"]}, {}, False),
        ({"full": True, "force": True}, {}, True),
        ({}, {"full": True}, False),
        ({"full": True}, {"force": True}, False),
        ({"failure_cooldown_seconds": 9.0}, {}, False),  # it leaves out what is paused
        ({"failure_cooldown_seconds": 9.0}, {"failure_cooldown_seconds": 9.0}, True),
    ],
)
def test_a_request_that_is_covered_is_not_recorded_unless_that_is_wanted(
    catalog: Catalog, known: dict[str, Any], asked: dict[str, Any], covered: bool
) -> None:
    def ask(request_id: str, wanted: dict[str, Any], *, unless_covered: bool) -> bool:
        given = {"components": [], "reason": "", **wanted}
        return catalog.inbox.request(request_id, **given, unless_covered=unless_covered)

    ask("known", known, unless_covered=True)
    if covered:
        with pytest.raises(RequestCoveredError) as refused:
            ask("asked", asked, unless_covered=True)
        assert refused.value.request_id == "known"
        catalog.inbox.finish(["known"])
    assert ask("asked", asked, unless_covered=True)
    assert ask("anyway", asked, unless_covered=False)


def test_requests_are_listed_from_the_newest_with_who_asked_and_what_came_of_it(
    catalog: Catalog,
) -> None:
    catalog.inbox.receive([event("an event")])
    for number in range(3):
        catalog.inbox.request(f"r{number}", components=[], reason="", requested_by=f"ada/{number}")
    result = RebuildResult(
        status=RebuildStatus.SUCCESS, message="built", started_at=_AT, finished_at=_AT
    )
    catalog.inbox.finish(["r1", "an event"], result=result)
    newest, *rest = catalog.inbox.requests()
    assert (newest.request.requested_by, newest.finished_at) == ("ada/2", None)
    assert [each.request.request_id for each in rest] == ["r1", "r0"]
    assert rest[0].result == result
    assert catalog.inbox.requests(before=newest.position, most=1) == rest[:1]
    assert catalog.inbox.find_request("r1") == rest[0]
    assert catalog.inbox.find_request("an event") is None


def test_an_event_never_becomes_a_request_and_never_takes_its_place(
    catalog: Catalog, clock: FakeClock
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


def test_finished_rows_make_room_for_new_ones_the_oldest_first(catalog: Catalog) -> None:
    catalog.inbox.receive([event(id_) for id_ in "abcd"])
    catalog.inbox.finish(["b", "c"])
    assert catalog.inbox.receive([event("e")], most=4) == 1
    assert open_ids(catalog) == ["a", "d", "e"]
    assert catalog.inbox.receive([event("c")], most=4) == 0  # it is known yet
    assert catalog.inbox.receive([event("b")], most=4) == 1  # and it is not any more
    assert open_ids(catalog) == ["a", "d", "e", "b"]


def test_events_beyond_the_limit_are_not_noted_while_none_of_the_others_is_finished(
    catalog: Catalog,
) -> None:
    assert catalog.inbox.receive([event(id_) for id_ in "abc"], most=2) == 2
    assert catalog.inbox.receive([event("d")], most=2) == 0
    assert catalog.inbox.request("r1", components=[], reason="a person is always heard")
    assert open_ids(catalog) == ["a", "b", "r1"]
    catalog.inbox.finish(["a", "b", "r1"])
    assert catalog.inbox.receive([event("d")], most=2) == 1


def test_no_more_requests_wait_than_may(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexrelay.storage.catalog.inbox.MAX_OPEN_REQUESTS", 2)
    catalog.inbox.receive([event("a"), event("b")])  # which are none
    for request in ("r1", "r2"):
        assert catalog.inbox.request(request, components=[], reason="")
    with pytest.raises(TooManyRequestsError, match="2 requests wait for a rebuilder"):
        catalog.inbox.request("r3", components=[], reason="")
    assert not catalog.inbox.request("r1", components=[], reason="")
    catalog.inbox.finish(["r1"])
    assert catalog.inbox.request("r3", components=[], reason="")


def test_what_came_of_a_request_stands_in_its_row(catalog: Catalog, clock: FakeClock) -> None:
    result = RebuildResult(
        status=RebuildStatus.SUCCESS, message="x", started_at=clock.now(), finished_at=clock.now()
    )
    for request in ("r1", "r2", "r3"):
        catalog.inbox.request(request, components=[], reason="")
    catalog.inbox.receive([event("a")])
    assert catalog.inbox.answer("r1") == Answer(finished=False, result=None)
    catalog.inbox.finish(["r1", "r2", "a"], result=result)
    catalog.inbox.finish(["r3"])
    assert catalog.inbox.answer("r1") == Answer(finished=True, result=result)
    assert catalog.inbox.answer("r2") == Answer(finished=True, result=result)
    assert catalog.inbox.answer("r3") == Answer(finished=True, result=None)
    assert catalog.inbox.answer("a") is None
    assert catalog.inbox.answer("never") is None
    with catalog._database.write() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM indexrelay_answers").scalar() == 1
        connection.execute(text("UPDATE indexrelay_answers SET result = :raw"), {"raw": b"later"})
    assert catalog.inbox.answer("r1") == Answer(finished=True, result=None)
    clock.advance(8 * 86_400)
    catalog.inbox.finish([])
    with catalog._database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM indexrelay_answers").scalar() == 0
