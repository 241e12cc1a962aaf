from datetime import timedelta

from indexrelay.schemas.names import sha256_hex
from indexrelay.storage.catalog import Attempt, Catalog, DeadLetter, LettersLetGo, Pause, Unreadable
from tests.storage.catalog.clock import HandClock


def fail(
    catalog: Catalog,
    *,
    inputs: str = "i1",
    generation: int = 1,
    error: str = "broken",
    transient: bool = False,
) -> Attempt:
    return catalog.attempts.failed(
        "voyager", error=error, inputs=inputs, targets={"tracks": generation}, transient=transient
    )


def test_failures_count_up_and_remember_the_last_one(catalog: Catalog, clock: HandClock) -> None:
    first = fail(catalog)
    assert (first.failures, first.failed_at, first.first_failed_at) == (1, clock.now(), clock.now())
    clock.move(timedelta(minutes=1))

    last = fail(catalog, generation=2, error="still broken")

    assert last == Attempt(
        component="voyager",
        failures=2,
        error="still broken",
        inputs="i1",
        targets={"tracks": 2},
        transient=False,
        failed_at=clock.now(),
        first_failed_at=first.failed_at,
    )
    assert catalog.attempts.all() == {"voyager": last}


def test_other_inputs_start_to_count_again(catalog: Catalog) -> None:
    fail(catalog)
    fail(catalog)
    assert fail(catalog, inputs="i2").failures == 1


def test_since_when_it_fails_is_forgotten_by_success_alone(
    catalog: Catalog, clock: HandClock
) -> None:
    since = clock.now()
    for change in ({}, {"inputs": "i2"}, {"inputs": "i2", "transient": True}, {"inputs": "i1"}):
        assert fail(catalog, **change).first_failed_at == since
        clock.move(timedelta(minutes=1))
    catalog.attempts.succeeded("voyager")
    assert fail(catalog).first_failed_at == clock.now()


def test_failures_for_a_cause_outside_do_not_count_as_the_components_own(catalog: Catalog) -> None:
    counts = [
        fail(catalog, transient=transient).failures for transient in (True, True, True, False)
    ]
    assert counts == [1, 2, 3, 1]
    assert [fail(catalog).failures, fail(catalog, transient=True).failures] == [2, 3]


def test_success_forgets_the_failures(catalog: Catalog) -> None:
    fail(catalog)
    catalog.attempts.succeeded("voyager")
    assert catalog.attempts.all() == {}
    assert fail(catalog).failures == 1


def test_failures_and_pauses_survive_a_restart(url: str, clock: HandClock) -> None:
    first = Catalog.open(url, clock=clock)
    failed = fail(first)
    first.attempts.pause("clap", "too slow")
    first.close()

    second = Catalog.open(url)
    assert second.attempts.all() == {"voyager": failed}
    assert second.attempts.paused() == {
        "clap": Pause(component="clap", reason="too slow", since=clock.now())
    }
    second.close()


def test_a_pause_keeps_its_beginning_and_takes_a_new_reason(
    catalog: Catalog, clock: HandClock
) -> None:
    begun = clock.now()
    catalog.attempts.pause("clap", "too slow")
    clock.move(timedelta(hours=1))
    catalog.attempts.pause("clap", "still too slow")

    assert catalog.attempts.paused()["clap"].since == begun
    assert catalog.attempts.paused()["clap"].reason == "still too slow"
    catalog.attempts.resume("clap")
    catalog.attempts.resume("clap")
    assert catalog.attempts.paused() == {}


def test_an_error_that_no_database_takes_is_noted_all_the_same(catalog: Catalog) -> None:
    assert fail(catalog, error="nul \0 and \ud800").error == "nul ␀ and \\ud800"


def test_dead_letters_keep_their_bytes(catalog: Catalog, clock: HandClock) -> None:
    raw = bytes(range(256))
    first = catalog.dead_letters.bury(stream="events", entry_id="1-0", raw=raw, reason="not JSON")
    second = catalog.dead_letters.bury(stream="events", entry_id="2-0", raw=b"", reason="empty")

    assert catalog.dead_letters.all() == [
        DeadLetter(
            id=first,
            stream="events",
            entry_id="1-0",
            size=256,
            raw=raw,
            digest=sha256_hex(raw),
            reason="not JSON",
            buried_at=clock.now(),
        ),
        DeadLetter(
            id=second,
            stream="events",
            entry_id="2-0",
            size=0,
            raw=b"",
            digest=sha256_hex(b""),
            reason="empty",
            buried_at=clock.now(),
        ),
    ]


def test_burying_the_same_entry_again_is_the_same_letter(catalog: Catalog) -> None:
    def bury(raw: bytes) -> int:
        return catalog.dead_letters.bury(stream="events", entry_id="1-0", raw=raw, reason="odd")

    assert bury(b"a") == bury(b"a")
    # A stream that was wiped can give an entry id a second time.
    assert bury(b"b") != bury(b"a")
    assert len(catalog.dead_letters.all()) == 2


def test_a_discarded_letter_is_gone_and_its_id_is_not_given_again(catalog: Catalog) -> None:
    first = catalog.dead_letters.bury(stream="events", entry_id="1-0", raw=b"a", reason="odd")
    assert catalog.dead_letters.discard(first)
    assert not catalog.dead_letters.discard(first)
    assert catalog.dead_letters.all() == []
    assert catalog.dead_letters.bury(stream="e", entry_id="2-0", raw=b"b", reason="odd") > first


def letters(*numbers: int) -> list[Unreadable]:
    return [Unreadable(entry_id=f"{each}-0", raw=b"?", reason="not JSON") for each in numbers]


def test_of_a_large_letter_the_beginning_is_kept_with_the_size_and_digest_of_all(
    catalog: Catalog,
) -> None:
    raw = b"x" * 65_536 + b"y"
    buried = catalog.dead_letters.bury(
        stream="events", entry_id="1-0", raw=raw, reason="r" * 10_000
    )
    letter = catalog.dead_letters.get(buried)
    assert letter is not None
    assert (letter.raw, letter.size, letter.whole) == (raw[:-1], 65_537, False)
    assert letter.digest == sha256_hex(raw)
    assert len(letter.reason) == 1000
    [header] = catalog.dead_letters.headers()
    assert header.size == 65_537
    assert catalog.dead_letters.holds(stream="events", entry_id="1-0", raw=raw)
    assert not catalog.dead_letters.holds(stream="events", entry_id="1-0", raw=raw[:-1] + b"z")


def test_letters_beyond_the_limit_are_counted_and_let_go_until_a_person_has_dealt_with_the_others(
    catalog: Catalog, clock: HandClock
) -> None:
    dead = catalog.dead_letters
    assert dead.let_go() is None
    assert dead.bury_some(letters(1, 2), stream="events", most=3) == 0
    assert dead.bury_some(letters(3, 4, 5), stream="events", most=3) == 2
    first = clock.now()
    clock.move(timedelta(minutes=1))
    assert dead.bury_some(letters(6), stream="other", most=3) == 1
    assert dead.let_go() == LettersLetGo(count=3, first_at=first, last_at=clock.now())
    assert [letter.entry_id for letter in dead.all()] == ["1-0", "2-0", "3-0"]
    # What may end a process has to be known for it, however many there are.
    dead.bury(stream="events", entry_id="7-0", raw=b"!", reason="deadly")
    assert dead.count() == 4
    kept = [letter.id for letter in dead.all()]
    for letter in kept[:-1]:
        dead.discard(letter)
    assert dead.let_go() is not None
    dead.discard(kept[-1])
    assert (dead.count(), dead.let_go()) == (0, None)


def test_a_letter_of_an_earlier_release_is_whole(catalog: Catalog) -> None:
    buried = catalog.dead_letters.bury(stream="events", entry_id="1-0", raw=b"abc", reason="odd")
    with catalog._database.write() as connection:
        connection.exec_driver_sql("UPDATE indexrelay_dead_letters SET size = NULL")
    letter = catalog.dead_letters.get(buried)
    assert letter is not None
    assert (letter.size, letter.whole) == (3, True)
    assert [header.size for header in catalog.dead_letters.headers()] == [3]
