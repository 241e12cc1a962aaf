from datetime import timedelta

from indexrelay.storage.catalog import Attempt, Catalog, DeadLetter, Pause
from tests.storage.catalog.hand_clock import HandClock


def fail(
    catalog: Catalog,
    *,
    inputs: str = "i1",
    generation: int = 1,
    error: str = "broken",
    passing: bool = False,
) -> Attempt:
    return catalog.attempts.failed(
        "voyager", error=error, inputs=inputs, targets={"tracks": generation}, passing=passing
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
        passing=False,
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
    for change in ({}, {"inputs": "i2"}, {"inputs": "i2", "passing": True}, {"inputs": "i1"}):
        assert fail(catalog, **change).first_failed_at == since
        clock.move(timedelta(minutes=1))
    catalog.attempts.succeeded("voyager")
    assert fail(catalog).first_failed_at == clock.now()


def test_failures_for_a_cause_outside_do_not_count_as_the_components_own(catalog: Catalog) -> None:
    counts = [fail(catalog, passing=passing).failures for passing in (True, True, True, False)]
    assert counts == [1, 2, 3, 1]
    assert [fail(catalog).failures, fail(catalog, passing=True).failures] == [2, 3]


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
            raw=raw,
            reason="not JSON",
            buried_at=clock.now(),
        ),
        DeadLetter(
            id=second,
            stream="events",
            entry_id="2-0",
            raw=b"",
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
