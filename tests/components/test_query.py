"""What a search gives besides its hits, and the checks of what is asked."""

import json
import pickle
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.query import (
    MAX_IDS,
    MAX_PAGE,
    TEXT_KEYWORDS,
    VECTOR_KEYWORDS,
    Explanation,
    Hits,
    Layer,
    ManyHits,
    QueryOptions,
    Stage,
    Stopwatch,
    checked_limit,
)
from indexrelay.components.served import Hit


def test_hits_are_a_list_that_may_be_explained() -> None:
    hits = Hits([Hit("a", 1.0, None)])
    assert hits == [Hit("a", 1.0, None)]
    assert hits.explanation is None
    hits.explanation = Explanation(plan="unfiltered")
    assert Hits().explanation is None, "of one query, not of all"


def test_the_hits_of_many_queries_are_made_when_they_are_read_and_once() -> None:
    made: list[int] = []

    def make(query: int) -> Hits:
        made.append(query)
        return Hits([Hit(f"of {query}", 1.0, None)])

    many = ManyHits(4, make)
    assert len(many) == 4
    assert made == []
    assert many[-1] == [Hit("of 3", 1.0, None)]
    assert many[3] is many[-1]
    assert many[1:3] == [[Hit("of 1", 1.0, None)], [Hit("of 2", 1.0, None)]]
    assert made == [3, 1, 2]
    with pytest.raises(IndexError):
        many[4]
    expected = [[Hit(f"of {query}", 1.0, None)] for query in range(4)]
    assert many == expected
    assert many != expected[:3]
    assert pickle.loads(pickle.dumps(many)) == expected  # noqa: S301 - our own bytes
    assert repr(many) == repr(expected)
    assert made == [3, 1, 2, 0]
    assert not ManyHits(0, make)


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
        QueryOptions.of(10, {"without": given})


@pytest.mark.parametrize("given", [(), ["a"], {"a", "b"}, frozenset({"a"})])
def test_ids_to_leave_out_come_in_any_collection(given: Any) -> None:
    assert QueryOptions.of(10, {"without": given}).without == given


@pytest.mark.parametrize("given", [0, -1, True, 2.0, "3", None, MAX_PAGE + 1])
def test_a_page_has_a_bounded_number_of_entries(given: Any) -> None:
    with pytest.raises(InvalidQueryError, match="limit"):
        checked_limit(given)


def test_every_option_has_a_name_for_callers_and_none_is_taken_twice() -> None:
    assert [each.name for each in fields(QueryOptions)] == ["k", *_in_order(VECTOR_KEYWORDS)]
    assert {*VECTOR_KEYWORDS} - {*TEXT_KEYWORDS} == {"diversity"}


def _in_order(names: tuple[str, ...]) -> list[str]:
    order = [each.name for each in fields(QueryOptions)]
    return sorted(names, key=order.index)


def test_options_that_are_not_given_are_those_of_a_plain_search() -> None:
    options = QueryOptions.of(np.int64(7), {})
    assert options == QueryOptions(k=7)
    assert type(options.k) is int
    assert options.is_plain
    assert not QueryOptions.of(7, {"filter": {}}).is_plain
    assert not QueryOptions.of(7, {"without": ["a"]}).is_plain
    assert not QueryOptions.of(7, {"explain": True}).is_plain


def test_an_option_that_does_not_exist_is_named_with_those_there_are() -> None:
    with pytest.raises(TypeError, match="search takes no 'diversity'; it takes k, filter, without"):
        QueryOptions.of(10, {"diversity": 0.5}, TEXT_KEYWORDS)


@pytest.mark.parametrize("k", [0, -1, True, 1.5, "3", None])
def test_a_number_of_hits_is_a_whole_number_from_one(k: Any) -> None:
    with pytest.raises(InvalidQueryError, match="k is a whole number and at least 1"):
        QueryOptions.of(k, {"explain": True})


def test_candidates_keep_what_may_be_found_and_lose_the_arrangement() -> None:
    asked = QueryOptions.of(
        2,
        {"filter": {"a": 1}, "without": ["x"], "group_by": "a", "diversity": 1, "explain": True},
    )
    beyond = {"b": {"$nin": [2]}}
    assert asked.candidates(9, beyond) == QueryOptions(
        k=9, filter={"$and": [{"a": 1}, beyond]}, without=["x"], explain=True
    )
    assert asked.candidates(9).filter == {"a": 1}
    limited = QueryOptions(k=2, max_payload_bytes=50 << 20)
    assert limited.candidates(3).max_payload_bytes == 100 << 20, "for two times as many at most"
    assert QueryOptions(k=2, max_payload_bytes=1).candidates(3).max_payload_bytes == 16 << 20


def test_more_ids_may_be_left_out() -> None:
    assert QueryOptions(without=["a"]).leaving_out(["b", "a"]).without == {"a", "b"}
