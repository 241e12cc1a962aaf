"""Every problem is a plain sentence with something to do about it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from indexrelay.console.judging import judge
from indexrelay.console.overview import CollectionFacts, ComponentFacts, Condition
from indexrelay.schemas.results import ComponentState, LoadOutcome, ReaderState, RebuilderState
from indexrelay.schemas.settings import Metric

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "a" * 64


def reader(**update: Any) -> ReaderState:
    return ReaderState(
        reader="one", host="h", pid=1, started_at=NOW, updated_at=NOW, ready=True, release=3
    ).model_copy(update=update)


REBUILDER = RebuilderState(
    rebuilder="r", host="h", pid=2, started_at=NOW, updated_at=NOW, release=3
)


def component(condition: Condition, **known: Any) -> ComponentFacts:
    return ComponentFacts(kind="vector_index", condition=condition, **{"version": DIGEST, **known})


def problems(**update: Any) -> list[str]:
    facts: dict[str, Any] = {
        "release": 3,
        "announced": 3,
        "redis_error": None,
        "collections": {},
        "components": {"map": component(Condition.CURRENT)},
        "readers": {"one": reader()},
        "rebuilders": {"r": REBUILDER},
        **update,
    }
    return [f"{problem.what} → {problem.advice}" for problem in judge(**facts)]


def test_nothing_is_wrong_when_all_is_well() -> None:
    assert problems() == []


FAILED_LOAD = ComponentState(outcome=LoadOutcome.FAILED, version=DIGEST, error="no memory")


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"redis_error": "refused", "readers": {}, "rebuilders": {}}, "Redis does not answer"),
        ({"rebuilders": {}}, "start one with: indexrelay rebuilder"),
        ({"readers": {}}, "start one with: indexrelay reader --id NAME"),
        ({"announced": 2}, "Redis was only told of 2"),
        ({"readers": {"one": reader(release=2)}}, "one is at release 2, 3 is the newest"),
        ({"announced": 5}, "release 5 was announced, but the newest in the artifacts is 3"),
        ({"readers": {"one": reader(ready=False)}}, "a required component is not served"),
        (
            {"readers": {"one": reader(components={"map": FAILED_LOAD})}},
            "could not load map, it serves the last good one: no memory",
        ),
    ],
)
def test_what_is_wrong_is_said_once(update: dict[str, Any], said: str) -> None:
    (problem,) = problems(**update)
    assert said in problem


def test_a_collection_that_is_gone_is_told_with_what_still_serves_it() -> None:
    gone = CollectionFacts(dimension=2, metric=Metric.L2, source="catalog", generation=0, entries=0)
    served = component(Condition.CURRENT, covers={"tracks": 5})
    (problem,) = problems(collections={"tracks": gone}, components={"map": served})
    assert "collection tracks is gone, and what was made of it still serves: map" in problem
    assert problems(collections={"tracks": gone}) == []  # declared, and not filled yet
    made_anew = {"tracks": gone.model_copy(update={"epoch": "another"})}
    assert len(problems(collections=made_anew, components={"map": served})) == 1
    there = gone.model_copy(update={"epoch": "e", "generation": 5})
    assert problems(collections={"tracks": there}, components={"map": served}) == []


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            component(Condition.FAILED, failures=2, error="boom"),
            "failed 2 time(s) in a row, the last good version still serves: boom",
        ),
        (component(Condition.FAILED, version=None, error="boom"), "nothing serves it: boom"),
        (component(Condition.HELD, behind={"t": 2}, error="bad maps"), "indexrelay lift map"),
        (component(Condition.PAUSED, behind={"t": 2}, error="cost"), "indexrelay resume map"),
        (component(Condition.MISSING, version=None, behind={"t": 1}), "was never built"),
        (component(Condition.BEHIND, behind={"t": 4}), "4 generation(s) of t behind"),
        (component(Condition.CHANGED), "declared differently"),
        (component(Condition.UNDECLARED), "do not declare it"),
    ],
)
def test_a_component_that_is_not_current_is_a_problem(facts: ComponentFacts, said: str) -> None:
    (problem,) = problems(components={"map": facts})
    assert said in problem


@pytest.mark.parametrize(
    "facts",
    [
        component(Condition.HELD, error="bad maps"),
        component(Condition.PAUSED, error="cost"),
        component(Condition.BUILDING, behind={"t": 1}),
        component(Condition.MISSING, version=None),
    ],
)
def test_what_someone_decided_or_what_is_under_way_is_no_problem(facts: ComponentFacts) -> None:
    assert problems(components={"map": facts}) == []
