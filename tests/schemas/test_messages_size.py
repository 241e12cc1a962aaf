"""However many components fail with however long errors, a message of ours can be read."""

from datetime import UTC, datetime
from typing import Any

import pytest

from indexrelay.schemas.messages import (
    MAX_EVENT_BYTES,
    BuildOutcome,
    ComponentFailure,
    ComponentResult,
    ComponentState,
    Event,
    LoadOutcome,
    ReaderState,
    RebuilderState,
    RebuildFinished,
    RebuildResult,
    RebuildStatus,
    ReleaseApplied,
    fitted_rebuilder,
    fitted_result,
    fitted_states,
)
from indexrelay.schemas.names import MAX_COMPONENTS, MAX_ERROR, MAX_MESSAGE, fitted, shortened
from indexrelay.schemas.versions import Check

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = [f"c{number:04}".ljust(64, "x") for number in range(MAX_COMPONENTS)]
LONG = "\x01" * 10_000
"""As JSON writes it, six times as long."""


def result(**changes: Any) -> RebuildResult:
    fields: dict[str, Any] = {
        "status": RebuildStatus.FAILURE,
        "message": "All index rebuilds failed",
        "started_at": NOON,
        "finished_at": NOON,
    }
    return RebuildResult(**{**fields, **changes})


def component(outcome: BuildOutcome) -> ComponentResult:
    return ComponentResult(
        outcome=outcome,
        version="0" * 64,
        covers=dict.fromkeys(NAMES[:3], 2**62),
        checks=tuple(
            Check(name=f"check_{number}", passed=number > 0, detail="d" * 200)
            for number in range(20)
        ),
        error=None if outcome is BuildOutcome.REBUILT else LONG,
    )


def sent(given: RebuildResult) -> RebuildFinished:
    """What a reader of the stream has of it."""
    data = RebuildFinished.model_validate(fitted_result(given).model_dump())
    raw = Event.of(data, source="x" * 1000, time=NOON, subject="y" * 1000).to_bytes()
    assert len(raw) <= MAX_EVENT_BYTES
    read = Event.from_bytes(raw).data
    assert isinstance(read, RebuildFinished)
    return read


def test_a_result_of_usual_size_is_sent_as_it_is() -> None:
    given = result(components={name: component(BuildOutcome.FAILED) for name in NAMES[:20]})
    assert fitted_result(given) is given
    assert sent(given).omitted == ()


@pytest.mark.parametrize("outcome", list(BuildOutcome))
def test_a_result_of_all_components_keeps_what_operators_read_first(
    outcome: BuildOutcome,
) -> None:
    which = "indexes_rebuilt" if outcome is BuildOutcome.REBUILT else "indexes_failed"
    given = result(
        components={name: component(outcome) for name in NAMES},
        waiting=dict.fromkeys(NAMES, LONG),
        batch_ids=tuple(f"{number:04}" + "ü" * 196 for number in range(5_000)),
        request_ids=tuple(f"{number:04}" + "\x01" * 196 for number in range(1_000)),
        message=LONG,
        **{which: tuple(NAMES)},
    )
    read = sent(given)
    assert read.status is RebuildStatus.FAILURE
    assert getattr(read, which) == tuple(NAMES)
    assert len(read.message) <= MAX_MESSAGE
    assert read.batch_ids == given.batch_ids[-100:]
    assert "older batch ids" in read.omitted


def test_errors_stay_as_long_as_there_is_room_for_them() -> None:
    given = result(
        components={
            **{name: component(BuildOutcome.REBUILT) for name in NAMES[1:]},
            NAMES[0]: component(BuildOutcome.FAILED),
        }
    )
    read = sent(given)
    assert read.omitted[0] == "checks that passed"
    assert len(read.components) == MAX_COMPONENTS
    assert [check.passed for check in read.components[NAMES[0]].checks] == [False]
    assert len(read.components[NAMES[0]].error or "") == MAX_ERROR


def test_a_rebuilder_with_every_failure_there_can_be_is_present() -> None:
    failure = ComponentFailure(
        error=LONG, failures=3, targets=dict.fromkeys(NAMES[:50], 2**62), failed_at=NOON
    )
    state = RebuilderState(
        rebuilder="builder",
        host="h" * 1000,
        pid=1,
        started_at=NOON,
        updated_at=NOON,
        release=1,
        failures=dict.fromkeys(NAMES, failure),
        kept_back=dict.fromkeys(NAMES, LONG),
        last_result=result(components=dict.fromkeys(NAMES, component(BuildOutcome.FAILED))),
    )
    raw = fitted_rebuilder(state).model_dump_json().encode()
    assert len(raw) <= MAX_EVENT_BYTES
    assert RebuilderState.model_validate_json(raw).member == state.member


@pytest.mark.parametrize("covers", [1, 100])
def test_a_reader_with_every_load_failed_is_present_and_reports(covers: int) -> None:
    failed = ComponentState(
        outcome=LoadOutcome.FAILED,
        error=LONG,
        covers=dict.fromkeys(NAMES[:covers], 2**62),
        stamps=dict.fromkeys(NAMES[:covers], "s" * 64),
    )
    components = dict.fromkeys(NAMES, failed)
    state = ReaderState(
        reader="web", host="h", pid=1, started_at=NOON, updated_at=NOON, ready=False, release=1,
        components=components,
    )  # fmt: skip
    report = ReleaseApplied(reader="web", release=1, ready=False, seconds=0, components=components)
    for fit in (fitted_states(state), fitted_states(report)):
        assert len(fit.model_dump_json().encode()) <= MAX_EVENT_BYTES
        if covers == 1:
            assert len(fit.components) == MAX_COMPONENTS
            assert fit.components[NAMES[0]].error == "see its log"
        else:
            assert fit.components == {}  # says that it serves nothing, rather than nothing at all


def test_a_shortened_text_keeps_its_beginning_and_its_end() -> None:
    text = "BuildError: " + "x" * 5_000 + " the disk is full"
    short = shortened(text, 200)
    assert len(short) == 200
    assert short.startswith("BuildError: x")
    assert short.endswith("x the disk is full")
    assert "4829 characters and more left out" in short
    assert shortened("short", 5) == "short"


def test_a_text_that_is_no_unicode_can_be_sent_all_the_same() -> None:
    broken = b"no such file: \xff".decode(errors="surrogateescape")
    assert sent(result(message=broken)).message == "no such file: \\udcff"


def test_steps_that_do_not_make_it_fit_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="does not fit into 10 bytes"):
        fitted(result(), 10, [])
