"""What a search gives besides its hits, and the checks of what is asked."""

import json
from typing import Any

import pytest

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.query import (
    MAX_IDS,
    MAX_PAGE,
    Explanation,
    Hits,
    Layer,
    Stage,
    Stopwatch,
    checked_limit,
    checked_without,
)
from indexrelay.components.served import Hit


def test_hits_are_a_list_that_may_be_explained() -> None:
    hits = Hits([Hit("a", 1.0, None)])
    assert hits == [Hit("a", 1.0, None)]
    assert hits.explanation is None
    hits.explanation = Explanation(plan="unfiltered")
    assert Hits().explanation is None, "of one query, not of all"


def test_an_explanation_is_json_without_what_is_not_known() -> None:
    explained = Explanation(
        plan="selector",
        layers=(Layer("base", 100, "HNSW32"),),
        effort={"ef_search": 64},
        matches=0,
        stages=(Stage("filter", 0.25), Stage("search", 0.5)),
    )
    both = Explanation(plan="hybrid", arms={"vector": explained})
    assert json.loads(json.dumps(both.as_json())) == {
        "plan": "hybrid",
        "rounds": 1,
        "seconds": 0,
        "arms": {
            "vector": {
                "plan": "selector",
                "layers": [{"name": "base", "entries": 100, "how": "HNSW32"}],
                "effort": {"ef_search": 64},
                "rounds": 1,
                "matches": 0,
                "stages": [
                    {"name": "filter", "seconds": 0.25},
                    {"name": "search", "seconds": 0.5},
                ],
                "seconds": 0.75,
            }
        },
    }


def test_a_stopwatch_gives_each_stage_its_own_time() -> None:
    watch = Stopwatch()
    watch.stage("filter")
    watch.stage("search")
    assert [stage.name for stage in watch.stages] == ["filter", "search"]
    assert all(stage.seconds >= 0 for stage in watch.stages)


@pytest.mark.parametrize("given", ["abc", 3, [1], ["a", None], {"a": 1}, ["a"] * (MAX_IDS + 1)])
def test_ids_to_leave_out_are_a_bounded_list_of_texts(given: Any) -> None:
    with pytest.raises(InvalidQueryError, match="without"):
        checked_without(given)


@pytest.mark.parametrize("given", [(), ["a"], {"a", "b"}, frozenset({"a"})])
def test_ids_to_leave_out_come_in_any_collection(given: Any) -> None:
    assert checked_without(given) == given


@pytest.mark.parametrize("given", [0, -1, True, 2.0, "3", None, MAX_PAGE + 1])
def test_a_page_has_a_bounded_number_of_entries(given: Any) -> None:
    with pytest.raises(InvalidQueryError, match="limit"):
        checked_limit(given)
