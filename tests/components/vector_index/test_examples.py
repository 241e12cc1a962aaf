"""Searching by examples, and for the neighbours of many entries at once."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.components.errors import InvalidQueryError, UnknownEntryError
from indexrelay.components.served import Hit
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters, VectorSearch
from indexrelay.components.vector_index.examples import MOST_EXAMPLES, UNLIKE_WEIGHT
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors
from tests.components.jobs import clustered, make_job, make_snapshot, run

COUNT, DIMENSION = 120, 6
VECTORS = clustered(COUNT, DIMENSION, clusters=5)
IDS = [f"e{row:06d}" for row in range(COUNT)]


@pytest.fixture(params=list(Metric))
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorSearch]:
    kind = VectorIndex(VectorIndexParameters(index="Flat"))
    done = run(kind, make_job(tmp_path, make_snapshot(VECTORS, metric=request.param)))
    assert done.failed == []
    served = kind.load(done.files)
    yield served
    served.close()


def as_indexed(index: VectorSearch, vector: Vectors) -> Vectors:
    return vector / np.linalg.norm(vector) if index.metric is Metric.COSINE else vector


def nearest(index: VectorSearch, query: Vectors, *, without: set[str]) -> list[str]:
    """All ids in their order, computed here."""
    rows = np.array([as_indexed(index, vector) for vector in VECTORS])
    if index.metric is Metric.L2:
        order = np.argsort(np.linalg.norm(rows - query, axis=1), kind="stable")
    else:
        order = np.argsort(-(rows @ query), kind="stable")
    return [IDS[row] for row in order.tolist() if IDS[row] not in without]


def test_the_query_is_the_wanted_mean_minus_half_of_the_unwanted_one(index: VectorSearch) -> None:
    mine = np.linspace(-1, 1, DIMENSION, dtype=np.float32)
    like: list[Any] = ["e000003", "e000040", mine]
    unlike = ["e000077"]
    wanted = np.mean([as_indexed(index, each) for each in (VECTORS[3], VECTORS[40], mine)], axis=0)
    query = wanted - UNLIKE_WEIGHT * as_indexed(index, VECTORS[77])
    expected = nearest(index, query, without={"e000003", "e000040", "e000077"})
    found = [hit.id for hit in index.search_like(like=like, unlike=unlike, k=20)]
    assert found == expected[:20]


def test_one_example_is_searched_as_by_its_id(index: VectorSearch) -> None:
    by_id = index.search_by_id("e000011", k=7)
    alike = index.search_like(like=["e000011"], k=7)
    assert [hit.id for hit in alike] == [hit.id for hit in by_id]
    assert [hit.score for hit in alike] == pytest.approx([hit.score for hit in by_id], abs=1e-5)


def test_more_than_there_are_is_everything_but_the_examples(index: VectorSearch) -> None:
    found = index.search_like(like=["e000001"], unlike=["e000002"], k=1000)
    assert sorted(hit.id for hit in found) == [each for each in IDS if each not in IDS[1:3]]


def test_a_matrix_of_examples_is_one_for_each_row(index: VectorSearch) -> None:
    matrix = index.search_like(like=VECTORS[:3], k=5)
    listed = index.search_like(like=list(VECTORS[:3]), k=5)
    assert [hit.id for hit in matrix] == [hit.id for hit in listed]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"like": []}, "give at least one id or vector in like"),
        ({"like": "e000001"}, "like is a list of ids and vectors, not 'e000001'"),
        ({"like": {"e000001"}}, "like is a list of ids and vectors, not {'e000001'}"),
        ({"like": ["e000001"], "unlike": "e000002"}, "unlike is a list of ids and vectors"),
        ({"like": [[1.0, 2.0]]}, r"has the shape \(6,\), not \(2,\)"),
        ({"like": [[np.nan] * DIMENSION]}, "must not hold a NaN"),
        ({"like": ["e000001"] * (MOST_EXAMPLES + 1)}, "like has at most 1,000 examples"),
        ({"like": ["e000001"], "k": 0}, "k is a whole number"),
    ],
)
def test_examples_that_make_no_query_are_refused(
    index: VectorSearch, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidQueryError, match=said):
        index.search_like(**asked)


def test_an_example_that_is_not_there_is_named(index: VectorSearch) -> None:
    with pytest.raises(UnknownEntryError, match="nobody"):
        index.search_like(like=["e000001"], unlike=["nobody"])


def test_neighbours_of_many_are_those_of_each(index: VectorSearch) -> None:
    asked = ["e000050", "e000001", "e000050", "e000119"]
    found = index.neighbours(asked, k=4)
    assert list(found) == ["e000050", "e000001", "e000119"]
    for entry_id, hits in found.items():
        alone = index.search_by_id(entry_id, k=4)
        assert [hit.id for hit in hits] == [hit.id for hit in alone]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=1e-5)


def test_neighbours_of_nobody_are_none_and_of_an_unknown_one_an_error(index: VectorSearch) -> None:
    assert index.neighbours([]) == {}
    with pytest.raises(UnknownEntryError, match="nobody"):
        index.neighbours(["e000001", "nobody"])
    with pytest.raises(InvalidQueryError, match="ids is a list of ids, not a str"):
        index.neighbours("e000001")


@pytest.fixture(params=["Flat", "IVF4,Flat", "HNSW16"])
def grouped(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorSearch]:
    asked = {"index": request.param, "filterable": {"heap": "keyword", "row": "number"}}
    if request.param == "IVF4,Flat":
        asked["nprobe"] = 4  # all of them: which ones a query needs is not asked here
    many = clustered(600, DIMENSION, clusters=5)
    payloads = [f'{{"heap": "h{row % 7}", "row": {row}}}' for row in range(600)]
    kind = VectorIndex(VectorIndexParameters.model_validate(asked))
    done = run(kind, make_job(tmp_path, make_snapshot(many, payloads=payloads)))
    served = kind.load(done.files)
    yield served
    served.close()


@pytest.mark.parametrize("per_group", [1, 2])
@pytest.mark.parametrize("asked", [None, {"row": {"$gte": 100}}])
def test_groups_take_turns_until_all_are_full(
    grouped: VectorSearch, asked: Any, per_group: int
) -> None:
    query = clustered(1, DIMENSION, seed=11)[0]
    hits = grouped.search(query, k=50, filter=asked, group_by="heap", per_group=per_group)
    firsts: list[str] = []
    seen: Counter[str] = Counter()
    for hit in grouped.search(query, k=600, filter=asked):
        seen[hit.payload["heap"]] += 1
        if seen[hit.payload["heap"]] <= per_group:
            firsts.append(hit.id)
    assert len(hits) == 7 * per_group
    missed = set(firsts) - {hit.id for hit in hits}
    assert len(missed) <= 2, "a graph finds nearly all"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_an_entrys_own_group_is_only_left_out_with_it(grouped: VectorSearch) -> None:
    hits = grouped.search_by_id("e000010", k=7, group_by="heap")
    assert {hit.payload["heap"] for hit in hits} == {f"h{heap}" for heap in range(7)}
    assert "e000010" not in {hit.id for hit in hits}


def test_diverse_neighbours_are_less_alike(grouped: VectorSearch) -> None:
    def alike(hits: Sequence[Hit]) -> float:
        vectors = grouped.vectors_of(hits)
        return float((vectors @ vectors.T)[~np.eye(len(hits), dtype=bool)].mean())

    plain = grouped.search_by_id("e000010", k=6)
    diverse = grouped.search_by_id("e000010", k=6, diversity=0.6)
    assert diverse[0].id == plain[0].id
    assert alike(diverse) < alike(plain)


def test_an_arranged_answer_is_explained_and_its_payloads_have_a_limit(
    grouped: VectorSearch,
) -> None:
    query = clustered(1, DIMENSION, seed=11)[0]
    hits = grouped.search(query, k=3, group_by="heap", explain=True)
    assert hits.explanation is not None
    assert hits.explanation.stages[-1].name == "all rounds"
    size = sum(len(hit.payload_json or b"") for hit in hits)
    assert grouped.search(query, k=3, group_by="heap", max_payload_bytes=size) == hits
    with pytest.raises(InvalidQueryError, match="have more than"):
        grouped.search(query, k=3, group_by="heap", max_payload_bytes=size - 1)
