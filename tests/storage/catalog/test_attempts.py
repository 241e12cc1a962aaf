from indexrelay.storage.catalog import Attempt, Catalog, Pause
from indexrelay.testing import FakeClock


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


def test_failures_count_up_and_remember_the_last_one(catalog: Catalog, clock: FakeClock) -> None:
    first = fail(catalog)
    assert (first.failures, first.failed_at, first.first_failed_at) == (1, clock.now(), clock.now())
    clock.advance(60)

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
    catalog: Catalog, clock: FakeClock
) -> None:
    since = clock.now()
    for change in ({}, {"inputs": "i2"}, {"inputs": "i2", "transient": True}, {"inputs": "i1"}):
        assert fail(catalog, **change).first_failed_at == since
        clock.advance(60)
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


def test_failures_and_pauses_survive_a_restart(url: str, clock: FakeClock) -> None:
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
    catalog: Catalog, clock: FakeClock
) -> None:
    begun = clock.now()
    catalog.attempts.pause("clap", "too slow")
    clock.advance(3600)
    catalog.attempts.pause("clap", "still too slow")

    assert catalog.attempts.paused()["clap"].since == begun
    assert catalog.attempts.paused()["clap"].reason == "still too slow"
    catalog.attempts.resume("clap")
    catalog.attempts.resume("clap")
    assert catalog.attempts.paused() == {}


def test_an_error_that_no_database_takes_is_noted_all_the_same(catalog: Catalog) -> None:
    assert fail(catalog, error="nul \0 and \ud800").error == "nul ␀ and \\ud800"
