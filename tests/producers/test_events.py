"""Events that are written together are what they would be one by one."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from indexrelay.producers.events import Envelopes, EventDraft
from indexrelay.schemas.messages import BatchCompleted, Event, EventData, RebuildRequested

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TRACES = [None, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]


def completed(collection: str, batch_id: str, generation: int) -> EventData:
    return BatchCompleted(
        collection=collection, epoch="e", batch_id=batch_id, generation=generation
    )


def requested(reason: str) -> EventData:
    return RebuildRequested(request_id="r", reason=reason)


said = st.builds(
    EventDraft,
    st.builds(
        completed,
        st.sampled_from(["tracks", "artists"]),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5),
        st.integers(0, 2**62),
    )
    | st.builds(requested, st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
    st.sampled_from(["tracks", 'a "quoted" ♫ one']),
    st.sampled_from([None, "given"]),
    st.sampled_from(TRACES),
)


@given(st.lists(said, max_size=8))
def test_each_event_reads_as_if_it_had_been_made_alone(several: list[EventDraft]) -> None:
    envelopes = Envelopes("a job")
    halves = several[: len(several) // 2], several[len(several) // 2 :]
    events = [Event.from_bytes(raw) for half in halves for raw in envelopes.write(half, NOW)]
    alone = [
        Event.of(
            each.data,
            source="a job",
            time=NOW,
            id=event.id,
            subject=each.subject,
            traceparent=each.traceparent,
        )
        for each, event in zip(several, events, strict=True)
    ]
    assert events == alone
    drawn = [event.id for each, event in zip(several, events, strict=True) if not each.event_id]
    assert len(set(drawn)) == len(drawn)
    assert {len(each) for each in drawn} <= {32}
    given_ids = [event.id for each, event in zip(several, events, strict=True) if each.event_id]
    assert set(given_ids) <= {"given"}


def test_time_goes_on_and_kinds_that_are_too_many_are_forgotten() -> None:
    envelopes = Envelopes("a job")
    data = completed("tracks", "b", 1)
    later = NOW + timedelta(seconds=1, microseconds=1)
    for time in (NOW, later):
        (raw,) = envelopes.write([EventDraft(data, "tracks")], time)
        assert Event.from_bytes(raw).time == time
    subjects = [f"subject {number}" for number in range(2_500)]
    raws = envelopes.write([EventDraft(data, subject) for subject in subjects], NOW)
    assert [Event.from_bytes(raw).subject for raw in raws] == subjects
    assert len(envelopes._shared) <= 1000
