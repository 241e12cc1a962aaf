"""A dead letter that became readable: into the inbox, once, whoever asks how often."""

from concurrent.futures import ThreadPoolExecutor

from indexrelay.storage.catalog import Catalog, DeadLetterHeader, ReceivedEvent
from tests.storage.catalog.clock import HandClock

RAW = b'{"a": 1}'


def letter(catalog: Catalog, *, stream: str = "events", entry_id: str = "1-0") -> int:
    return catalog.dead_letters.bury(stream=stream, entry_id=entry_id, raw=RAW, reason="too new")


def event(clock: HandClock, event_id: str = "e1") -> ReceivedEvent:
    return ReceivedEvent(
        event_id=event_id, type="batch.completed.v1", body=RAW, received_at=clock.now()
    )


def open_ids(catalog: Catalog) -> list[str]:
    return [row.event_id for row in catalog.inbox.open()]


def test_a_revived_letter_is_in_the_inbox_and_no_letter_any_more(
    catalog: Catalog, clock: HandClock
) -> None:
    buried = letter(catalog)
    assert catalog.dead_letters.revive(buried, event(clock))
    assert open_ids(catalog) == ["e1"]
    assert catalog.dead_letters.get(buried) is None
    assert not catalog.dead_letters.revive(buried, event(clock, "e2"))
    assert open_ids(catalog) == ["e1"]


def test_an_event_that_was_dealt_with_is_not_done_again_by_its_letter(
    catalog: Catalog, clock: HandClock
) -> None:
    catalog.inbox.receive([event(clock)])
    catalog.inbox.finish(["e1"])
    assert catalog.dead_letters.revive(letter(catalog), event(clock))
    assert open_ids(catalog) == []


def test_a_row_that_was_closed_unread_is_opened_again(catalog: Catalog, clock: HandClock) -> None:
    catalog.inbox.receive([event(clock)])
    catalog.inbox.finish(["e1"])
    assert catalog.dead_letters.revive(letter(catalog, stream="inbox", entry_id="e1"), event(clock))
    assert open_ids(catalog) == ["e1"]


def test_only_a_letter_that_was_a_row_of_the_inbox_is_a_request_again(
    catalog: Catalog, clock: HandClock
) -> None:
    catalog.dead_letters.revive(letter(catalog), event(clock, "from a stream"))
    catalog.inbox.receive([event(clock, "taken")])
    for event_id in ("gone", "taken"):
        mine = letter(catalog, stream="inbox", entry_id=event_id)
        catalog.dead_letters.revive(mine, event(clock, event_id))
    assert {row.event_id: row.requested for row in catalog.inbox.open()} == {
        "from a stream": False,
        "gone": True,
        "taken": True,
    }


def test_of_two_that_revive_one_letter_at_once_one_does(catalog: Catalog, clock: HandClock) -> None:
    with ThreadPoolExecutor(2) as threads:
        for attempt in range(5):
            letters = [letter(catalog, entry_id=f"{attempt}-0")] * 2
            done = threads.map(
                lambda each: catalog.dead_letters.revive(each, event(clock)), letters
            )
            assert sorted(done) == [False, True]
    assert open_ids(catalog) == ["e1"]


def test_letters_are_listed_without_their_bytes_and_amended(
    catalog: Catalog, clock: HandClock
) -> None:
    buried = letter(catalog)
    assert catalog.dead_letters.count() == 1
    assert catalog.dead_letters.holds(stream="events", entry_id="1-0", raw=RAW)
    assert not catalog.dead_letters.holds(stream="events", entry_id="1-0", raw=b"other")
    assert catalog.dead_letters.amend(buried, reason="still too new")
    assert catalog.dead_letters.headers() == [
        DeadLetterHeader(
            id=buried,
            stream="events",
            entry_id="1-0",
            size=len(RAW),
            reason="still too new",
            buried_at=clock.now(),
        )
    ]
    assert catalog.dead_letters.discard(buried)
    assert not catalog.dead_letters.amend(buried, reason="gone")
    assert catalog.dead_letters.headers() == []
    assert catalog.dead_letters.count() == 0
