"""Filtered queries find what is nearest among the matches, by whichever plan."""

import json
import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.components.matches import Matches
from indexrelay.components.query import Stopwatch
from indexrelay.components.vector_index import VectorSearch, planner
from indexrelay.components.vector_index.index_search import knob_of
from indexrelay.components.vector_index.planner import Answers, Planner, compared, raised
from indexrelay.components.vector_index.spec import Effort
from indexrelay.schemas.settings import Metric
from tests.components.jobs import MemorySnapshot, Row, clustered, make_snapshot
from tests.components.vector_index.histories import History

ROWS, DIMENSION = 1500, 12
FIELDS = {"row": "number", "even": "boolean", "tenth": "keyword"}
INDEXES = ["Flat", "IVF16,Flat", "IVF16,SQ8", "HNSW16", "IVF16,PQ4,RFlat", "OPQ4,IVF16,PQ4"]
FILTERS: dict[str, Any] = {
    "half": {"even": True},
    "a tenth": {"tenth": "3"},
    "all but a tenth": {"tenth": {"$ne": "3"}},
    "few": {"row": {"$lt": 15}},
    "three": {"row": {"$in": [3, 700, 1499]}},
    "none": {"row": -1},
}


def around(index: Any, *_: Any) -> float:
    """As if to compare matches were the dearer way, wherever there is another."""
    return 0 if knob_of(index) is not None else math.inf


def compressed(index: str) -> bool:
    return "PQ" in index and "RFlat" not in index


def payload(row: int) -> str:
    return json.dumps({"row": row, "even": row % 2 == 0, "tenth": str(row % 10)})


def collection(metric: Metric) -> MemorySnapshot:
    vectors = clustered(ROWS, DIMENSION, clusters=12, spread=0.8)
    return make_snapshot(vectors, metric=metric, payloads=[payload(row) for row in range(ROWS)])


def with_delta(history: History) -> None:
    vectors = clustered(40, DIMENSION, clusters=12, spread=0.8, seed=5)
    upserts = {
        f"e{row:06d}": Row(vector=vectors[number], payload=payload(row + 1))
        for number, row in enumerate(range(0, ROWS, ROWS // 39))
    }
    history.commit(upserts, [f"e{row:06d}" for row in range(3, 40, 7)])


@pytest.fixture(scope="module", params=[Metric.COSINE, Metric.L2])
def metric(request: pytest.FixtureRequest) -> Metric:
    return Metric(request.param)


@pytest.fixture(scope="module", params=INDEXES)
def opened(
    request: pytest.FixtureRequest, metric: Metric, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A version with a delta and tombstones, and the collection that it was made from."""
    folder = tmp_path_factory.mktemp("planner")
    recall = 0.3 if compressed(request.param) else 0.97
    history = History(
        folder, collection(metric), index=request.param, min_recall=recall, filterable=FIELDS
    )
    with_delta(history)
    assert history.done.failed == []
    assert history.done.built.extends
    with closing(history.open()) as search:
        yield search, history.source


def nearest(source: MemorySnapshot, query: Any, asked: dict[str, Any], k: int) -> list[str]:
    """The ids of the nearest matches, by the textbook."""
    [(field, condition)] = asked.items()
    matching = [
        entry_id
        for entry_id in source.ids
        if _matches(json.loads(source.rows[entry_id].payload or "{}")[field], condition)
    ]
    vectors = np.array([source.rows[each].vector for each in matching]).reshape(-1, DIMENSION)
    vectors, query = vectors.astype(np.float64), np.asarray(query, dtype=np.float64)
    if source.metric is Metric.COSINE:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    far = (
        np.linalg.norm(vectors - query, axis=1) if source.metric is Metric.L2 else -vectors @ query
    )
    return [matching[at] for at in np.argsort(far)[:k]]


def _matches(value: Any, condition: Any) -> bool:
    if not isinstance(condition, dict):
        return bool(value == condition)
    [(operator, operand)] = condition.items()
    if operator == "$in":
        return value in operand
    return bool(value != operand if operator == "$ne" else value < operand)


def answered(
    search: VectorSearch, query: Any, asked: Any, k: int = 10
) -> tuple[Answers, list[str]]:
    plans = Planner(search.contents, search._search)
    search.contents.columns._kept.clear()  # and with it, what was prepared for the filter
    query = np.asarray(query, dtype=np.float32)
    if search.metric is Metric.COSINE:
        query = query / np.linalg.norm(query)
    answers = plans.answer(query[None, :], k, search.contents.columns.matching(asked))
    return answers, search.contents.ids_of(answers.rows[0])


@pytest.mark.parametrize("name", FILTERS)
def test_few_matches_are_all_compared(
    opened: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, source = opened
    monkeypatch.setattr(planner, "compared", lambda *_: 2 * ROWS)
    for query in clustered(5, DIMENSION, clusters=12, seed=9):
        answers, ids = answered(search, query, FILTERS[name])
        assert ids == nearest(source, query, FILTERS[name], 10)
        assert answers.plan == ("nothing" if name == "none" else "exact")
        assert answers.candidates == answers.matches


@pytest.mark.parametrize("name", ["half", "a tenth", "all but a tenth", "few", "three"])
def test_an_index_is_searched_around_what_does_not_match(
    opened: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, source = opened
    monkeypatch.setattr(planner, "compared", around)
    hits = wanted = 0
    for query in clustered(20, DIMENSION, clusters=12, seed=9):
        answers, ids = answered(search, query, FILTERS[name])
        true = nearest(source, query, FILTERS[name], 10)
        assert len(ids) == len(set(ids)) == len(true)
        assert set(ids) <= set(nearest(source, query, FILTERS[name], ROWS))
        hits += len(set(ids) & set(true))
        wanted += len(true)
        flat = search.facts.factory == "Flat"
        assert answers.plan == ("exact" if flat else "selector") or answers.matches == len(true)
    assert hits / wanted >= (0.3 if compressed(search.facts.factory) else 0.85)


def test_answers_come_nearest_first_and_from_both_layers(opened: Any) -> None:
    search, source = opened
    query = clustered(1, DIMENSION, clusters=12, seed=3)[0]
    for rows in (0, ROWS):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(planner, "compared", lambda *_, rows=rows: rows or around(*_))
            answers, ids = answered(search, query, {"row": {"$lt": 2000}}, k=len(search))
        found = answers.found[0] if search.metric is Metric.L2 else -answers.found[0]
        assert (np.diff(found) >= 0).all()
        assert sorted(ids) == source.ids


def test_rows_that_are_left_out_make_room_for_others(opened: Any) -> None:
    search, source = opened
    plans = Planner(search.contents, search._search)
    query = search.vector_at(40)[None, :]
    asked = search.contents.columns.matching({"even": True})
    for wanted in (None, asked):
        for count in (3, 3 * planner._FEW_TO_LEAVE_OUT):
            first = plans.answer(query, count, wanted).rows[0]
            rest = plans.answer(query, 10, wanted, without=first).rows[0]
            assert len(rest[rest >= 0]) == 10
            assert not set(first.tolist()) & set(rest.tolist())
    everything = np.concatenate([np.arange(search.facts.rows)])
    assert not (plans.answer(query, 10, asked, without=everything).rows >= 0).any()
    assert len(source.ids) == len(search)


def test_a_query_for_many_vectors_is_many_queries(opened: Any) -> None:
    search, _ = opened
    plans = Planner(search.contents, search._search)
    queries = np.array([search.vector_at(position) for position in range(0, 400, 100)])
    asked = search.contents.columns.matching({"tenth": {"$in": ["1", "2"]}})
    together = plans.answer(queries, 10, asked)
    for number, query in enumerate(queries):
        alone = plans.answer(query[None, :], 10, asked)
        assert np.allclose(together.found[number], alone.found[0], rtol=1e-4, atol=1e-5)
    assert plans.answer(queries[:0], 10, asked).rows.shape == (0, 0)


def test_an_explanation_names_layers_plan_and_effort(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, _ = opened
    plans = Planner(search.contents, search._search)
    watch = Stopwatch()
    query = search.vector_at(0)[None, :]
    search.contents.columns._kept.clear()
    asked = search.contents.columns.matching({"even": True})
    monkeypatch.setattr(planner, "compared", around)
    answers = plans.answer(query, 10, asked)
    watch.stage("search")
    explained = plans.explanation(answers, watch)
    base, delta = explained.layers
    assert (base.name, base.how) == ("base", search.facts.factory)
    assert (delta.name, delta.entries) == ("delta", search.facts.delta.count)
    assert base.entries + delta.entries == len(search)
    assert explained.matches == len(asked)
    assert [stage.name for stage in explained.stages] == ["search"]
    assert bool(explained.effort) == (search.facts.factory != "Flat")


def test_an_index_that_takes_no_selector_compares_all_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "compared", around)
    source = collection(Metric.L2)
    history = History(tmp_path, source, index="NSG16", min_recall=0.3, filterable=FIELDS)
    with closing(history.open()) as search:
        assert search.facts.refusal
        query = clustered(1, DIMENSION, clusters=12, seed=3)[0]
        answers, ids = answered(search, query, {"even": True})
        assert answers.plan == "exact"
        assert ids == nearest(source, query, {"even": True}, 10)


def test_the_fewer_match_the_harder_it_is_searched(opened: Any) -> None:
    search, _ = opened
    index = search.contents.base.index
    if search.facts.factory == "Flat":
        assert raised(index, Effort(), 10, 0.01) == Effort()
        return
    efforts = [raised(index, search.facts.effort, 10, share) for share in (1.0, 0.5, 0.1, 0.01)]
    values = [effort.nprobe or effort.ef_search or 0 for effort in efforts]
    assert efforts[0] == search.facts.effort
    assert values == sorted(values)
    assert values[-1] > values[0] or values[-1] == search.facts.effort.nprobe


def test_the_more_is_searched_the_more_matches_may_be_compared_instead(opened: Any) -> None:
    search, _ = opened
    index = search.contents.base.index
    if search.facts.factory == "Flat":
        assert compared(index, Effort(), 0.5) == math.inf
        return
    knob = knob_of(index)
    assert knob is not None
    rows = [compared(index, Effort.model_validate({knob.name: value}), 0.5) for value in (1, 4, 16)]
    assert 0 < rows[0] < rows[1] < rows[2]
    every = Effort.model_validate({knob.name: knob.most})
    assert compared(index, every, 1.0) >= ROWS


def test_a_search_that_finds_too_few_ends_in_a_comparison_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a graph does whose matches all lie far from the query."""
    source = collection(Metric.L2)
    far = source.ids[:60]
    rows = {
        entry_id: replace(row, vector=row.vector + np.float32(50 * (entry_id in far)))
        for entry_id, row in source.rows.items()
    }
    source = MemorySnapshot(rows, dimension=DIMENSION, metric=Metric.L2)
    history = History(tmp_path, source, index="IVF16,Flat", min_recall=0.5, filterable=FIELDS)
    asked = {"row": {"$lt": 60}}
    query = source.rows[source.ids[-1]].vector
    efforts: list[int] = []

    def compared_later(_index: Any, effort: Effort, _share: float) -> float:
        efforts.append(effort.nprobe or 0)
        return math.inf if len(efforts) > 2 else 0

    monkeypatch.setattr(planner, "compared", compared_later)
    monkeypatch.setattr(planner, "raised", lambda *_: Effort(nprobe=1))
    with closing(history.open()) as search:
        answers, ids = answered(search, query, asked)
        assert answers.plan == "exact"
        assert ids == nearest(source, query, asked, 10)
    assert efforts == [1, 2, 4], "doubled while that is less work"


def test_searches_are_kept_prepared_for_a_bounded_number_of_hits(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, _ = opened
    monkeypatch.setattr(planner, "compared", around)
    matches = search.contents.columns.matching({"even": True})
    plans = Planner(search.contents, search._search)
    for k in range(1, 4 * planner._KEPT):
        assert plans.nearest(search.vector_at(0)[None, :], k, matches).rows.shape == (1, k)
        assert len(matches.base.prepared) <= planner._KEPT


def test_matches_without_any_entry_are_answered_at_once(opened: Any) -> None:
    search, _ = opened
    none: Matches = search.contents.columns.matching({"row": -1})
    answers = Planner(search.contents, search._search).nearest(
        search.vector_at(0)[None, :], 10, none
    )
    assert answers.rows.shape == (1, 0)
    assert answers.plan == "nothing"
