"""What comes off a stream: read exactly, or refused with its bytes kept."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.messages import MAX_EVENT_BYTES, Event, EventData
from tests.schemas.sample_events import SAID, event_of

by_type = pytest.mark.parametrize("data", SAID, ids=lambda data: data.TYPE)
BATCH = SAID[0]


def changed(event_data: EventData, **attributes: Any) -> bytes:
    """The event's JSON with other attributes in its envelope."""
    return json.dumps({**json.loads(event_of(event_data).to_bytes()), **attributes}).encode()


def refused(raw: bytes) -> str:
    """Why ``raw`` is refused; and that the error keeps the very bytes."""
    with pytest.raises(UnreadableEventError) as caught:
        Event.from_bytes(raw)
    assert caught.value.raw == raw
    assert len(caught.value.reason) < 4000
    return caught.value.reason


def reread(raw: bytes) -> None:
    """What can be read can be said again, and says the same; the rest keeps its bytes."""
    try:
        event = Event.from_bytes(raw)
    except UnreadableEventError as error:
        kept = error.raw
    else:
        assert Event.from_bytes(event.to_bytes()) == event
        return
    assert kept == raw


@by_type
def test_an_event_comes_back_as_it_was_sent(data: EventData) -> None:
    event = event_of(data)
    assert Event.from_bytes(event.to_bytes()) == event


@by_type
def test_an_event_as_it_is_sent_is_read_in_one_go(
    data: EventData, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = event_of(data)
    monkeypatch.delattr(Event, "_step_by_step")
    assert Event.from_bytes(event.to_bytes()) == event


@by_type
def test_an_event_is_a_cloudevent_in_json(data: EventData) -> None:
    envelope = json.loads(event_of(data).to_bytes())
    assert envelope["specversion"] == "1.0"
    assert envelope["type"] == data.TYPE
    assert envelope["datacontenttype"] == "application/json"
    assert {"id", "source", "time", "subject", "schemaversion", "traceparent"} <= set(envelope)


def test_attributes_without_a_value_are_left_out() -> None:
    event = Event.of(BATCH, source="s", time=event_of(BATCH).time)
    assert not {"subject", "traceparent"} & set(json.loads(event.to_bytes()))


def test_two_events_have_different_ids_unless_one_is_given() -> None:
    ids = {Event.of(BATCH, source="s", time=event_of(BATCH).time).id for _ in range(100)}
    assert len(ids) == 100


@by_type
def test_fields_that_a_newer_minor_version_added_are_ignored(data: EventData) -> None:
    envelope = json.loads(event_of(data).to_bytes())
    newer = {
        **envelope,
        "schemaversion": "1.7",
        "mood": "good",
        "data": {**envelope["data"], "since": {"deep": [1, 2]}},
    }
    event = Event.from_bytes(json.dumps(newer).encode())
    assert event.data == data
    assert event.schemaversion == "1.7"


@pytest.mark.parametrize(
    "attributes",
    [
        {"type": "batch.completed.v2"},
        {"schemaversion": "2.0"},
        {"specversion": "2.0"},
        {"specversion": "0.3"},
    ],
    ids=str,
)
def test_another_major_version_is_unreadable(attributes: dict[str, str]) -> None:
    reason = refused(changed(BATCH, **attributes))
    assert next(iter(attributes)) in reason


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xff\xfe", b"null", b"[]", b'"text"', b"{}", b"{", '{"type": 1}'.encode("utf-16")],
)
def test_garbage_is_unreadable(raw: bytes) -> None:
    assert refused(raw)


_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2**70)
    | st.floats()
    | st.sampled_from(["", "1.7", "tracks", "2026-03-01T12:00:00Z", "batch.completed.v1", "0" * 64])
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine, too
@given(st.sampled_from(SAID), st.booleans(), st.data())
def test_an_event_that_is_read_in_one_go_is_the_one_that_is_read_step_by_step(
    said: EventData, in_data: bool, draw: st.DataObject
) -> None:
    document = json.loads(event_of(said).to_bytes())
    part = document["data"] if in_data else document
    key = draw.draw(st.sampled_from([*part, "unknown"]))
    if draw.draw(st.booleans()):
        part[key] = draw.draw(_ANYTHING)
    else:
        part.pop(key, None)
    raw = json.dumps(document).encode()

    def read(reader: Callable[[bytes], Event]) -> object:
        try:
            return reader(raw)
        except UnreadableEventError as error:
            return error.reason

    assert read(Event.from_bytes) == read(Event._step_by_step)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_json_has_not_is_unreadable(number: str) -> None:
    applied = next(data for data in SAID if data.TYPE == "release.applied.v1")
    raw = event_of(applied).to_bytes().replace(b'"seconds":0.25', f'"seconds":{number}'.encode())
    assert number.encode() in raw
    assert refused(raw)


def test_not_a_number_is_unreadable_even_in_an_unknown_field() -> None:
    assert "column 12" in refused(b'{"ignored":NaN,' + event_of(BATCH).to_bytes()[1:])


@pytest.mark.parametrize("depth", [500, 900, 100_000])
def test_deep_nesting_is_unreadable(depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    assert refused(nested)
    assert refused(b'{"type":' + nested + b"}")
    assert refused(event_of(BATCH).to_bytes()[:-1] + b',"data":' + nested + b"}")


def test_an_event_larger_than_the_limit_is_not_even_parsed() -> None:
    small = event_of(BATCH).to_bytes()
    assert Event.from_bytes(small + b" " * (MAX_EVENT_BYTES - len(small))).data == BATCH
    assert str(MAX_EVENT_BYTES) in refused(small + b" " * (MAX_EVENT_BYTES + 1 - len(small)))


def test_the_reason_stays_short_however_much_is_wrong() -> None:
    published = SAID[3]
    components = {f"Not A Name {i}" * 50: i for i in range(1000)}
    reason = refused(changed(published, data={"components": components}))
    assert "more" in reason


@pytest.mark.parametrize("value", [None, [], "text", 3, {}, {"collection": "Not a name"}])
def test_data_that_does_not_fit_its_type_is_unreadable(value: Any) -> None:
    assert refused(changed(BATCH, data=value))


def test_a_time_without_a_zone_is_unreadable() -> None:
    assert "time" in refused(changed(BATCH, time="2026-03-01T12:00:00"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(raw=st.binary(max_size=200))
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    refused(raw)


@given(data=st.sampled_from(SAID), attributes=st.data())
def test_no_corrupt_attribute_raises_anything_else(
    data: EventData, attributes: st.DataObject
) -> None:
    envelope = json.loads(event_of(data).to_bytes())
    place = attributes.draw(st.sampled_from([envelope, envelope["data"]]))
    place[attributes.draw(st.sampled_from(sorted(place)))] = attributes.draw(json_values)
    reread(json.dumps(envelope).encode())


@given(data=st.sampled_from(SAID), cut=st.data())
def test_no_corrupt_byte_raises_anything_else(data: EventData, cut: st.DataObject) -> None:
    raw = bytearray(event_of(data).to_bytes())
    start = cut.draw(st.integers(0, len(raw)))
    end = cut.draw(st.integers(start, min(len(raw), start + 20)))
    raw[start:end] = cut.draw(st.binary(max_size=20))
    reread(bytes(raw))
