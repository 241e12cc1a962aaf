"""Dead letters that are retried, by the way that events take."""

from indexrelay.rebuilder.dead_letters import RetryOutcome, retry_dead_letter
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import BatchCompleted, Event, RebuildStatus, ReleasePublished
from tests.rebuilder.conftest import Bench, MakeBench, behaving

CLOCK = SystemClock()


def add_letter(bench: Bench, raw: bytes, *, stream: str = "events") -> int:
    return bench.catalog.dead_letters.add(
        stream=stream, entry_id="1-0", raw=raw, reason="the release before could not read it"
    )


def batch_event() -> Event:
    data = BatchCompleted(collection="tracks", epoch="e", batch_id="batch-1", generation=1)
    return Event.of(data, source="test", time=CLOCK.now())


def test_a_letter_that_is_readable_now_is_answered_like_any_event(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    event = batch_event()
    letter = add_letter(bench, event.to_bytes())
    again = retry_dead_letter(letter, catalog=bench.catalog, clock=CLOCK)
    assert (again.outcome, again.raw) == (RetryOutcome.RECEIVED, event.to_bytes())
    [row] = bench.catalog.inbox.open()
    assert (row.event_id, row.requested) == (event.id, False)
    assert bench.rebuild().status is RebuildStatus.SUCCESS
    assert bench.catalog.inbox.open() == []


def test_reading_a_letter_twice_does_what_reading_it_once_does(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    letter = add_letter(bench, batch_event().to_bytes())
    retry_dead_letter(letter, catalog=bench.catalog, clock=CLOCK)
    bench.rebuild()
    assert (
        retry_dead_letter(letter, catalog=bench.catalog, clock=CLOCK).outcome is RetryOutcome.GONE
    )
    assert bench.rebuilder.step() is None


def test_a_letter_that_is_still_unreadable_stays_with_its_bytes_and_the_new_reason(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=behaving("tracks"))
    letter = add_letter(bench, b"\xff\x1b[31m")
    again = retry_dead_letter(letter, catalog=bench.catalog, clock=CLOCK)
    assert again.outcome is RetryOutcome.UNREADABLE
    [kept] = bench.catalog.dead_letters.all()
    assert (kept.id, kept.raw, kept.reason) == (letter, b"\xff\x1b[31m", again.reason)
    assert "not JSON" in kept.reason
    assert bench.catalog.inbox.open() == []


def test_an_event_of_another_stream_stays_a_letter(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    data = ReleasePublished(release=1, digest="0" * 64)
    letter = add_letter(bench, Event.of(data, source="test", time=CLOCK.now()).to_bytes())
    again = retry_dead_letter(letter, catalog=bench.catalog, clock=CLOCK)
    assert again.outcome is RetryOutcome.UNREADABLE
    assert again.reason == "release.published.v1 does not belong into this stream"
