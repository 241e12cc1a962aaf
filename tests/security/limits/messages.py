"""What may be said in one message, and in one request."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.messages import (
    BatchCompleted,
    BuildOutcome,
    ComponentFailure,
    ComponentResult,
    ComponentState,
    Event,
    LoadOutcome,
    ReaderState,
    RebuilderState,
    RebuildFinished,
    RebuildRequested,
    RebuildResult,
    RebuildStatus,
    fitted_rebuilder,
    fitted_result,
    fitted_states,
)
from indexrelay.schemas.names import MAX_COMPONENTS
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.errors import InvalidBatchIdError
from indexrelay.streams import Presence
from tests.rebuilder.conftest import Bench, behaving
from tests.security.limits.table import Row, exercises

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def bench_of(request: pytest.FixtureRequest) -> Bench:
    make: Any = request.getfixturevalue("make_bench")
    bench: Bench = make(index=behaving("tracks"))
    return bench


def is_read(**changes: Any) -> bool:
    """Whether an event with these attributes is one, for whoever takes it from a stream."""
    data = BatchCompleted(collection="tracks", epoch="e", batch_id="b", generation=1)
    event = Event.of(data, source="test", time=NOON)
    if "batch_id" in changes:
        changes = {"data": data.model_copy(update=changes)}
    try:
        Event.from_bytes(event.model_copy(update=changes).to_bytes())
    except UnreadableEventError:
        return False
    return True


@exercises("characters of an event's `id`, and of a batch's")
def _ids(row: Row, request: pytest.FixtureRequest) -> None:
    catalog: Catalog = bench_of(request).catalog
    for length in (row.number, row.number + 1):
        text, fits = "x" * length, length == row.number
        assert is_read(id=text) is fits
        assert is_read(batch_id=text) is fits
        if fits:
            catalog.entries.commit("tracks", text, upserts=[], deletes=[])
        else:
            with pytest.raises(InvalidBatchIdError):
                catalog.entries.commit("tracks", text, upserts=[], deletes=[])


@exercises("characters of an event's `source`, `subject` and `type`")
def _attributes(row: Row, _request: pytest.FixtureRequest) -> None:
    for name in ("source", "subject", "datacontenttype"):
        assert is_read(**{name: "x" * row.number})
        assert not is_read(**{name: "x" * (row.number + 1)})
    assert not is_read(type="x" * row.number)  # is none of ours, however short


@exercises("characters of an event's `traceparent`")
def _traceparent(row: Row, _request: pytest.FixtureRequest) -> None:
    assert is_read(traceparent="0" * row.number)
    assert not is_read(traceparent="0" * (row.number + 1))


@exercises("components that one request names")
def _request(row: Row, request: pytest.FixtureRequest) -> None:
    inbox = bench_of(request).catalog.inbox
    names = [f"c{number}" for number in range(row.number + 1)]
    assert inbox.request("r1", components=names[:-1], reason="")
    with pytest.raises(ValueError, match="at most 1000 items"):
        inbox.request("r2", components=names, reason="")
    assert [each.event_id for each in inbox.open()] == ["r1"]
    asking = RebuildRequested(request_id="r").model_copy(update={"components": tuple(names)})
    raw = Event.of(asking, source="test", time=NOON).to_bytes()
    with pytest.raises(UnreadableEventError):
        Event.from_bytes(raw)


def declared(collections: int, components: int) -> Settings:
    behaviour = {"kind": "json_cache", "from": "c0", "function": "a:b"}
    return Settings.model_validate(
        {
            "collections": {f"c{number}": {"dimension": 2} for number in range(collections)},
            "components": {f"p{number}": behaviour for number in range(components)},
        }
    )


@exercises("collections that the settings declare")
def _collections(row: Row, _request: pytest.FixtureRequest) -> None:
    assert len(declared(row.number, 1).collections) == row.number
    with pytest.raises(ValidationError, match="at most 1000 items"):
        declared(row.number + 1, 1)


@exercises("components that the settings declare")
def _components(row: Row, _request: pytest.FixtureRequest) -> None:
    assert row.number == MAX_COMPONENTS
    assert len(declared(1, row.number).components) == row.number
    with pytest.raises(ValidationError, match="at most 1000 items"):
        declared(1, row.number + 1)


def large_result() -> RebuildResult:
    failed = ComponentResult(outcome=BuildOutcome.FAILED, error="x" * 2_000)
    names = tuple(f"c{number}" for number in range(MAX_COMPONENTS))
    return RebuildResult(
        status=RebuildStatus.FAILURE,
        message="All index rebuilds failed",
        indexes_failed=names,
        components=dict.fromkeys(names, failed),
        started_at=NOON,
        finished_at=NOON,
    )


@exercises("bytes of a result, a report and a presence of our own")
def _messages(row: Row, request: pytest.FixtureRequest) -> None:
    bench, result = bench_of(request), large_result()
    fit = RebuildFinished.model_validate(fitted_result(result).model_dump())
    assert len(Event.of(fit, source="test", time=NOON).to_bytes()) <= row.number
    assert fit.omitted
    assert fit.indexes_failed == result.indexes_failed
    process: dict[str, Any] = {"host": "h", "pid": 1, "started_at": NOON, "updated_at": NOON}
    failure = ComponentFailure(error="x" * 2_000, failures=1, failed_at=NOON)
    load = ComponentState(outcome=LoadOutcome.FAILED, error="x" * 2_000)
    rebuilder = RebuilderState(
        rebuilder="a",
        release=1,
        failures=dict.fromkeys(result.indexes_failed, failure),
        last_result=result,
        **process,
    )
    reader = ReaderState(
        reader="a",
        release=1,
        ready=False,
        components=dict.fromkeys(result.indexes_failed, load),
        **process,
    )
    for kind, state in (
        ("rebuilder", fitted_rebuilder(rebuilder)),
        ("reader", fitted_states(reader)),
    ):
        raw = state.model_dump_json().encode()
        presence = Presence(bench.connection, bench.keys, kind)  # type: ignore[arg-type] # a kind
        presence.publish("a", raw, ttl_seconds=60)
        assert presence.all() == {"a": raw}


@exercises("characters of an error in results, reports and presence")
def _error(row: Row, _request: pytest.FixtureRequest) -> None:
    for length in (row.number, row.number + 1):
        text = "x" * length
        for error in (
            ComponentResult(outcome=BuildOutcome.FAILED, error=text).error,
            ComponentState(outcome=LoadOutcome.FAILED, error=text).error,
            ComponentFailure(error=text, failures=1, failed_at=NOON).error,
        ):
            assert error is not None
            assert len(error) == row.number
            assert ("left out" in error) is (length > row.number)


@exercises("characters of a result's `message`")
def _message(row: Row, _request: pytest.FixtureRequest) -> None:
    result = large_result()
    for length in (row.number, row.number + 1):
        given = {**result.model_dump(), "message": "x" * length}
        message = RebuildResult.model_validate(given).message
        assert len(message) == row.number
        assert ("left out" in message) is (length > row.number)
