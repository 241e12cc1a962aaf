"""What a message leaves out when it would be too large to be read.

Whoever reads a message refuses one above `MAX_EVENT_BYTES` unread, so one of ours never is. With a
few components none comes near it. With hundreds that all fail, each with a long error, a message
says less about each: first what a log has as well, last what can be asked for elsewhere.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from indexrelay.schemas.events import MAX_EVENT_BYTES, ReleaseApplied
from indexrelay.schemas.limits import fitted, shortened
from indexrelay.schemas.results import (
    BuildOutcome,
    ComponentFailure,
    ComponentResult,
    ComponentState,
    ReaderState,
    RebuilderState,
    RebuildResult,
)

MAX_DATA_BYTES: Final = MAX_EVENT_BYTES - 16 * 1024
"""Of an event's data: its envelope has room beside it."""

_IN_PRESENCE: Final = MAX_EVENT_BYTES // 2
"""Of the last result, which is one part of a rebuilder's state."""

_SHORT: Final = 200
"""Characters of an error where there is no room for more."""

_SEE_LOG: Final = "see its log"
"""An error where there is room for none."""

_FEW: Final = 100
"""Things of a kind where there is no room for all."""

_WithStates = TypeVar("_WithStates", ReaderState, ReleaseApplied)


def fitted_result(result: RebuildResult, most_bytes: int = MAX_DATA_BYTES) -> RebuildResult:
    """``result`` as it can be sent; ``omitted`` says what is not in it."""
    fit, omitted = fitted(result, most_bytes, _RESULT_STEPS)
    return fit.model_copy(update={"omitted": omitted}) if omitted else result


def fitted_rebuilder(state: RebuilderState) -> RebuilderState:
    """``state`` as presence can hold it."""
    last = state.last_result
    if last is not None:
        last = fitted_result(last, _IN_PRESENCE)
        state = state.model_copy(update={"last_result": last})
    return fitted(state, MAX_DATA_BYTES, _REBUILDER_STEPS)[0]


def fitted_reader(state: ReaderState) -> ReaderState:
    """``state`` as presence can hold it."""
    return fitted(state, MAX_DATA_BYTES, _state_steps())[0]


def fitted_report(report: ReleaseApplied) -> ReleaseApplied:
    """``report`` as it can be sent."""
    return fitted(report, MAX_DATA_BYTES, _state_steps())[0]


def _each_result(
    change: Callable[[ComponentResult], ComponentResult | None],
) -> Callable[[RebuildResult], RebuildResult]:
    def step(result: RebuildResult) -> RebuildResult:
        changed = {name: change(each) for name, each in result.components.items()}
        kept = {name: each for name, each in changed.items() if each is not None}
        return result.model_copy(update={"components": kept})

    return step


def _without_passed_checks(component: ComponentResult) -> ComponentResult:
    failed = tuple(check for check in component.checks if not check.passed)
    return component.model_copy(update={"checks": failed})


def _briefly(component: ComponentResult) -> ComponentResult:
    return component.model_copy(update={"checks": (), "error": _short(component.error)})


def _if_not_rebuilt(component: ComponentResult) -> ComponentResult | None:
    return None if component.outcome is BuildOutcome.REBUILT else component


def _named_only(result: RebuildResult) -> RebuildResult:
    return result.model_copy(
        update={"components": {}, "waiting": {}, "request_ids": result.request_ids[:_FEW]}
    )


_RESULT_STEPS: Final[tuple[tuple[str, Callable[[RebuildResult], RebuildResult]], ...]] = (
    ("checks that passed", _each_result(_without_passed_checks)),
    (
        "older batch ids",
        lambda result: result.model_copy(update={"batch_ids": result.batch_ids[-_FEW:]}),
    ),
    ("checks and long errors", _each_result(_briefly)),
    ("components that were rebuilt", _each_result(_if_not_rebuilt)),
    ("all components, for what they wait, and later request ids", _named_only),
)


def _short(error: str | None) -> str | None:
    return None if error is None else shortened(error, _SHORT)


def _short_failures(state: RebuilderState) -> RebuilderState:
    failures: Mapping[str, ComponentFailure] = {
        name: each.model_copy(update={"error": shortened(each.error, _SHORT)})
        for name, each in state.failures.items()
    }
    kept_back = {name: shortened(why, _SHORT) for name, why in state.kept_back.items()}
    return state.model_copy(update={"failures": failures, "kept_back": kept_back})


_REBUILDER_STEPS: Final[tuple[tuple[str, Callable[[RebuilderState], RebuilderState]], ...]] = (
    ("last result", lambda state: state.model_copy(update={"last_result": None})),
    ("long errors", _short_failures),
    (
        "failures, and what is kept back",
        lambda state: state.model_copy(update={"failures": {}, "kept_back": {}}),
    ),
)


def _state_steps() -> tuple[tuple[str, Callable[[_WithStates], _WithStates]], ...]:
    def each(change: Callable[[ComponentState], ComponentState], of: _WithStates) -> _WithStates:
        components = {name: change(state) for name, state in of.components.items()}
        return of.model_copy(update={"components": components})

    return (
        (
            "long errors",
            lambda of: each(
                lambda state: state.model_copy(update={"error": _short(state.error)}), of
            ),
        ),
        (
            "errors",
            lambda of: each(
                lambda state: state.model_copy(update={"error": state.error and _SEE_LOG}), of
            ),
        ),
        ("stamps", lambda of: each(lambda state: state.model_copy(update={"stamps": {}}), of)),
        ("components", lambda of: of.model_copy(update={"components": {}})),
    )
