"""Dead letters: kept byte for byte, within limits, and requeued once when they can be read."""

from concurrent.futures import ThreadPoolExecutor

from indexrelay.schemas.names import sha256_hex
from indexrelay.storage.catalog import (
    Catalog,
    DeadLetter,
    DeadLetterHeader,
    DroppedLetters,
    ReceivedEvent,
    Unreadable,
)
from indexrelay.testing import FakeClock

RAW = b'{"a": 1}'


def letter(catalog: Catalog, *, stream: str = "events", entry_id: str = "1-0") -> int:
    return catalog.dead_letters.add(stream=stream, entry_id=entry_id, raw=RAW, reason="too new")


def event(clock: FakeClock, event_id: str = "e1") -> ReceivedEvent:
    return ReceivedEvent(
        event_id=event_id, type="batch.completed.v1", body=RAW, received_at=clock.now()
    )


def open_ids(catalog: Catalog) -> list[str]:
    return [row.event_id for row in catalog.inbox.open()]


def test_dead_letters_keep_their_bytes(catalog: Catalog, clock: FakeClock) -> None:
    raw = bytes(range(256))
    first = catalog.dead_letters.add(stream="events", entry_id="1-0", raw=raw, reason="not JSON")
    second = catalog.dead_letters.add(stream="events", entry_id="2-0", raw=b"", reason="empty")

    assert catalog.dead_letters.all() == [
        DeadLetter(
            id=first,
            stream="events",
            entry_id="1-0",
            size=256,
            raw=raw,
            digest=sha256_hex(raw),
            reason="not JSON",
            added_at=clock.now(),
        ),
        DeadLetter(
            id=second,
            stream="events",
            entry_id="2-0",
            size=0,
            raw=b"",
            digest=sha256_hex(b""),
            reason="empty",
            added_at=clock.now(),
        ),
    ]


def test_the_same_entry_again_is_the_same_letter(catalog: Catalog) -> None:
    def add_letter(raw: bytes) -> int:
        return catalog.dead_letters.add(stream="events", entry_id="1-0", raw=raw, reason="odd")

    assert add_letter(b"a") == add_letter(b"a")
    # A stream that was wiped can give an entry id a second time.
    assert add_letter(b"b") != add_letter(b"a")
    assert len(catalog.dead_letters.all()) == 2


def test_a_discarded_letter_is_gone_and_its_id_is_not_given_again(catalog: Catalog) -> None:
    first = catalog.dead_letters.add(stream="events", entry_id="1-0", raw=b"a", reason="odd")
    assert catalog.dead_letters.discard(first)
    assert not catalog.dead_letters.discard(first)
    assert catalog.dead_letters.all() == []
    assert catalog.dead_letters.add(stream="e", entry_id="2-0", raw=b"b", reason="odd") > first


def unreadable(*numbers: int) -> list[Unreadable]:
    return [Unreadable(entry_id=f"{each}-0", raw=b"?", reason="not JSON") for each in numbers]


def test_of_a_large_letter_the_beginning_is_kept_with_the_size_and_digest_of_all(
    catalog: Catalog,
) -> None:
    raw = b"x" * 65_536 + b"y"
    letter_id = catalog.dead_letters.add(
        stream="events", entry_id="1-0", raw=raw, reason="r" * 10_000
    )
    letter = catalog.dead_letters.get(letter_id)
    assert letter is not None
    assert (letter.raw, letter.size, letter.whole) == (raw[:-1], 65_537, False)
    assert letter.digest == sha256_hex(raw)
    assert len(letter.reason) == 1000
    [header] = catalog.dead_letters.headers()
    assert header.size == 65_537
    assert catalog.dead_letters.holds(stream="events", entry_id="1-0", raw=raw)
    assert not catalog.dead_letters.holds(stream="events", entry_id="1-0", raw=raw[:-1] + b"z")


def test_letters_beyond_the_limit_are_only_counted_until_the_others_are_discarded(
    catalog: Catalog, clock: FakeClock
) -> None:
    dead = catalog.dead_letters
    assert dead.dropped() is None
    assert dead.add_some(unreadable(1, 2), stream="events", most=3) == 0
    assert dead.add_some(unreadable(3, 4, 5), stream="events", most=3) == 2
    first = clock.now()
    clock.advance(60)
    assert dead.add_some(unreadable(6), stream="other", most=3) == 1
    assert dead.dropped() == DroppedLetters(count=3, first_at=first, last_at=clock.now())
    assert [letter.entry_id for letter in dead.all()] == ["1-0", "2-0", "3-0"]
    # What may end a process has to be known for it, however many there are.
    dead.add(stream="events", entry_id="7-0", raw=b"!", reason="deadly")
    assert dead.count() == 4
    kept = [letter.id for letter in dead.all()]
    for letter in kept[:-1]:
        dead.discard(letter)
    assert dead.dropped() is not None
    dead.discard(kept[-1])
    assert (dead.count(), dead.dropped()) == (0, None)


def test_a_letter_of_an_earlier_release_is_whole(catalog: Catalog) -> None:
    letter_id = catalog.dead_letters.add(stream="events", entry_id="1-0", raw=b"abc", reason="odd")
    with catalog._database.write() as connection:
        connection.exec_driver_sql("UPDATE indexrelay_dead_letters SET size = NULL")
    letter = catalog.dead_letters.get(letter_id)
    assert letter is not None
    assert (letter.size, letter.whole) == (3, True)
    assert [header.size for header in catalog.dead_letters.headers()] == [3]


def test_a_requeued_letter_is_in_the_inbox_and_no_letter_any_more(
    catalog: Catalog, clock: FakeClock
) -> None:
    letter_id = letter(catalog)
    assert catalog.dead_letters.requeue(letter_id, event(clock))
    assert open_ids(catalog) == ["e1"]
    assert catalog.dead_letters.get(letter_id) is None
    assert not catalog.dead_letters.requeue(letter_id, event(clock, "e2"))
    assert open_ids(catalog) == ["e1"]


def test_an_event_that_was_dealt_with_is_not_done_again_by_its_letter(
    catalog: Catalog, clock: FakeClock
) -> None:
    catalog.inbox.receive([event(clock)])
    catalog.inbox.finish(["e1"])
    assert catalog.dead_letters.requeue(letter(catalog), event(clock))
    assert open_ids(catalog) == []


def test_a_row_that_was_closed_unread_is_opened_again(catalog: Catalog, clock: FakeClock) -> None:
    catalog.inbox.receive([event(clock)])
    catalog.inbox.finish(["e1"])
    assert catalog.dead_letters.requeue(
        letter(catalog, stream="inbox", entry_id="e1"), event(clock)
    )
    assert open_ids(catalog) == ["e1"]


def test_only_a_letter_that_was_a_row_of_the_inbox_is_a_request_again(
    catalog: Catalog, clock: FakeClock
) -> None:
    catalog.dead_letters.requeue(letter(catalog), event(clock, "from a stream"))
    catalog.inbox.receive([event(clock, "taken")])
    for event_id in ("gone", "taken"):
        mine = letter(catalog, stream="inbox", entry_id=event_id)
        catalog.dead_letters.requeue(mine, event(clock, event_id))
    assert {row.event_id: row.requested for row in catalog.inbox.open()} == {
        "from a stream": False,
        "gone": True,
        "taken": True,
    }


def test_of_two_that_requeue_a_letter_at_once_one_does(catalog: Catalog, clock: FakeClock) -> None:
    with ThreadPoolExecutor(2) as threads:
        for attempt in range(5):
            letters = [letter(catalog, entry_id=f"{attempt}-0")] * 2
            done = threads.map(
                lambda each: catalog.dead_letters.requeue(each, event(clock)), letters
            )
            assert sorted(done) == [False, True]
    assert open_ids(catalog) == ["e1"]


def test_letters_are_listed_without_their_bytes_and_amended(
    catalog: Catalog, clock: FakeClock
) -> None:
    letter_id = letter(catalog)
    assert catalog.dead_letters.count() == 1
    assert catalog.dead_letters.holds(stream="events", entry_id="1-0", raw=RAW)
    assert not catalog.dead_letters.holds(stream="events", entry_id="1-0", raw=b"other")
    assert catalog.dead_letters.amend(letter_id, reason="still too new")
    assert catalog.dead_letters.headers() == [
        DeadLetterHeader(
            id=letter_id,
            stream="events",
            entry_id="1-0",
            size=len(RAW),
            reason="still too new",
            added_at=clock.now(),
        )
    ]
    assert catalog.dead_letters.discard(letter_id)
    assert not catalog.dead_letters.amend(letter_id, reason="gone")
    assert catalog.dead_letters.headers() == []
    assert catalog.dead_letters.count() == 0


def test_the_newest_letters_are_listed_page_by_page_with_the_beginning_of_their_bytes(
    catalog: Catalog,
) -> None:
    letters = catalog.dead_letters
    ids = [
        letters.add(stream="events", entry_id=f"{number}-0", raw=b"\x00\xff%d" % number, reason="")
        for number in range(5)
    ]
    page = letters.newest(most=2, raw_bytes=2)
    assert [(each.id, each.raw, each.size) for each in page] == [
        (ids[4], b"\x00\xff", 3),
        (ids[3], b"\x00\xff", 3),
    ]
    rest = letters.newest(most=9, before=ids[3], raw_bytes=100)
    assert [(each.id, each.raw) for each in rest] == [
        (ids[number], b"\x00\xff%d" % number) for number in (2, 1, 0)
    ]
