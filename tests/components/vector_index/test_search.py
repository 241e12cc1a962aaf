"""What a reader can search a vector index for, and what is refused."""

import gc
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from indexrelay.components.errors import InvalidQueryError, UnknownEntryError
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters, VectorSearch
from indexrelay.components.vector_index.index_search import knob_of, search_parameters
from indexrelay.components.vector_index.search import Queries
from indexrelay.components.vector_index.spec import Effort
from indexrelay.schemas.settings import Metric
from tests.components.jobs import MemorySnapshot, clustered, make_job, make_snapshot, run


def open_index(folder: Path, source: MemorySnapshot, **keys: Any) -> VectorSearch:
    kind = VectorIndex(VectorIndexParameters.model_validate(keys))
    done = run(kind, make_job(folder, source))
    assert done.failed == []
    return kind.load(done.files)


@pytest.fixture
def index(tmp_path: Path) -> VectorSearch:
    payloads = ['{"name": "one"}', None, "3"] + [None] * 97
    return open_index(tmp_path, make_snapshot(clustered(100, 4), payloads=payloads))


@pytest.mark.parametrize(
    ("metric", "scores"),
    [
        (Metric.COSINE, [1.0, 1 / np.sqrt(2), 0.0]),
        (Metric.INNER_PRODUCT, [6.0, 2.0, 0.0]),
        (Metric.L2, [1.0, np.sqrt(2), np.sqrt(5)]),
    ],
)
def test_scores_are_what_people_expect_of_the_metric(
    tmp_path: Path, metric: Metric, scores: list[float]
) -> None:
    vectors = np.array([[3, 0], [1, 1], [0, 1]], dtype=np.float32)
    index = open_index(tmp_path, make_snapshot(vectors, metric=metric))
    hits = index.search([2, 0])
    assert [hit.id for hit in hits] == ["e000000", "e000001", "e000002"]
    np.testing.assert_allclose([hit.score for hit in hits], scores, atol=1e-6)
    assert index.metric is metric


def test_a_query_may_be_any_array_of_numbers(index: VectorSearch) -> None:
    expected = index.search([1.0, 2.0, 3.0, 4.0], k=3)
    assert len(expected) == 3
    strided = np.arange(1, 9, dtype=np.float64)[::2] / 2 + 0.5
    assert index.search(strided, k=3) == expected
    assert index.search((1, 2, 3, 4), k=3) == expected


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ([1, 2, 3], r"has the shape \(4,\), not \(3,\)"),
        ([[1, 2, 3, 4]], r"not \(1, 4\)"),
        (1.0, "has the shape"),
        ([1, 2, np.nan, 4], "NaN or an infinity"),
        ([1, 2, np.inf, 4], "NaN or an infinity"),
        ([0, 0, 0, 0], "no direction"),
        ([1e-30, 0, 0, 0], "no direction"),
        ([3e38, 3e38, 3e38, 3e38], r"at most 1e\+18 long"),
        ([1e39, 0, 0, 0], "NaN or an infinity"),
        ("abcd", "array of numbers"),
        ([[1], [2, 3]], "array of numbers"),
        (None, "NaN|shape"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused(
    index: VectorSearch, query: Any, reason: str
) -> None:
    with pytest.raises(InvalidQueryError, match=reason):
        index.search(query)


@pytest.mark.parametrize("k", [0, -1])
def test_k_is_at_least_one(index: VectorSearch, k: int) -> None:
    for ask in (
        lambda: index.search([1, 2, 3, 4], k=k),
        lambda: index.search_many([[1, 2, 3, 4]], k=k),
        lambda: index.search_by_id("e000001", k=k),
    ):
        with pytest.raises(InvalidQueryError, match="at least 1"):
            ask()


def test_a_k_above_the_number_of_entries_returns_all(index: VectorSearch) -> None:
    assert len(index.search([1, 2, 3, 4], k=1000)) == len(index) == 100
    assert len(index.search_by_id("e000001", k=1000)) == 99


def test_many_queries_may_be_none(index: VectorSearch) -> None:
    assert index.search_many(np.empty((0, 4))) == []


def test_an_entry_can_be_the_query(index: VectorSearch) -> None:
    assert index.payload("e000000") == {"name": "one"}
    assert index.payload("e000001") is None
    assert index.ids[2] == "e000002"
    assert "e000099" in index
    assert "nobody" not in index
    for ask in (index.payload, index.vector, index.search_by_id):
        with pytest.raises(UnknownEntryError, match="'nobody'"):
            ask("nobody")
    with pytest.raises(IndexError):
        index.vector_at(100)


def test_a_large_k_searches_as_many_lists_as_it_needs(tmp_path: Path) -> None:
    source = make_snapshot(clustered(1000, 8, clusters=16, spread=0.05))
    index = open_index(tmp_path, source, index="IVF16,Flat", nprobe=1, min_recall=0.9)
    assert index.facts.effort.nprobe == 1
    hits = index.search(source.matrix[0], k=600)
    assert len({hit.id for hit in hits}) == 600
    assert len(index.search(source.matrix[0], k=1000)) == 1000


@pytest.mark.parametrize("count", [0, 1, 2, 5])
@pytest.mark.parametrize("factory", ["auto", "HNSW16", "IVF16,Flat", "SQ8"])
@pytest.mark.parametrize("metric", Metric)
def test_an_index_may_have_very_few_entries(
    tmp_path: Path, count: int, factory: str, metric: Metric
) -> None:
    source = make_snapshot(clustered(count, 4), metric=metric)
    index = open_index(tmp_path, source, index=factory, min_recall=0.9)
    assert (len(index), bool(index), index.mapped) == (count, True, True)
    assert len(index.search([1, 2, 3, 4])) == count
    assert index.search_many([[1, 2, 3, 4]], k=1) == [index.search([1, 2, 3, 4], k=1)]
    assert list(index.ids) == source.ids
    for name in source.ids:
        assert len(index.search_by_id(name)) == count - 1


def test_equal_entries_leave_out_the_one_that_was_asked_for(tmp_path: Path) -> None:
    index = open_index(tmp_path, make_snapshot(np.ones((50, 4), dtype=np.float32)))
    hits = index.search_by_id("e000049", k=10)
    assert len(hits) == 10
    assert "e000049" not in [hit.id for hit in hits]


def test_answers_stay_as_they_are_while_others_follow(index: VectorSearch) -> None:
    first, second = np.array([1, 2, 3, 4], np.float32), np.array([-4, 1, 0, 2], np.float32)
    kept = [index.search(query, k=k) for k in (3, 10, 3) for query in (first, second)]
    again = [index.search(query, k=k) for k in (3, 10, 3) for query in (first, second)]
    assert kept == again
    assert kept[0] != kept[1]
    assert kept[2][:3] == kept[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_query_is_left_as_it_was_given_and_may_change_later(
    index: VectorSearch, dtype: type[np.floating[Any]]
) -> None:
    query = np.array([[1, 2, 3, 4]], dtype=dtype)
    index.search(query[0])
    index.search_many(query)
    np.testing.assert_array_equal(query, [[1, 2, 3, 4]])
    query[:] = np.nan
    assert np.isfinite(index.recent_queries).all()


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "HNSW16"])
@pytest.mark.parametrize("metric", Metric)
def test_all_ways_of_searching_give_the_same(tmp_path: Path, metric: Metric, factory: str) -> None:
    payloads = ['{"name": "one"}', None, "3"] * 400
    source = make_snapshot(clustered(1200, 16), metric=metric, payloads=payloads)
    index = open_index(tmp_path, source, index=factory, min_recall=0.9)
    queries = clustered(30, 16, seed=5) * 3
    many = index.search_many(queries, k=7)
    for query, hits in zip(queries, many, strict=True):
        for one in (index.search(query, k=7), index.search(query.tolist(), k=7)):
            assert [(hit.id, hit.payload) for hit in one] == [(hit.id, hit.payload) for hit in hits]
            np.testing.assert_allclose(
                [hit.score for hit in one], [hit.score for hit in hits], rtol=1e-5, atol=1e-5
            )
    ids, scores = index.search_arrays(queries, k=7)
    assert ids.shape == (30, 7)
    assert (ids.dtype, scores.dtype) == (np.dtype(object), np.dtype(np.float32))
    assert ids.tolist() == [[hit.id for hit in hits] for hits in many]
    assert scores.tolist() == [[hit.score for hit in hits] for hits in many]


def test_many_queries_are_brought_to_the_same_unit_length_as_one(index: VectorSearch) -> None:
    rng = np.random.default_rng(4)
    queries = (rng.standard_normal((500, 4)) * rng.exponential(size=(500, 1)) ** 3).astype("f4")
    many = index._queries.many(queries)
    np.testing.assert_array_equal(many, [index._queries.one(query) for query in queries])
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize(
    ("wrong", "reason"), [(np.nan, "NaN"), (np.inf, "infinity"), (6e17, r"at most 1e\+18 long")]
)
def test_one_of_many_queries_that_cannot_be_answered_is_refused(
    metric: Metric, wrong: float, reason: str
) -> None:
    queries = Queries(dimension=4, metric=metric)
    long = np.full((8, 4), 4e17, dtype=np.float32)
    assert queries.many(long).shape == (8, 4), "each may be as long, though all together are longer"
    long[5] = wrong
    with pytest.raises(InvalidQueryError, match=reason):
        queries.many(long)


def test_arrays_have_as_many_columns_as_there_are_entries_at_most(index: VectorSearch) -> None:
    ids, scores = index.search_arrays([[1, 2, 3, 4]] * 2, k=1000)
    assert ids.shape == scores.shape == (2, 100)
    assert sorted(ids[1]) == list(index.ids)
    for none in index.search_arrays(np.empty((0, 4)), k=3):
        assert none.shape[0] == 0
    with pytest.raises(InvalidQueryError, match=r"shape \(n, 4\)"):
        index.search_arrays([1, 2, 3, 4])


def test_what_an_index_does_not_find_is_left_out_of_hits_and_marked_in_arrays(
    index: VectorSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph can be in pieces: then the best that FAISS gives is fewer rows, and -1 after them."""
    rows = np.array([[7, 3, -1], [5, -1, -1], [9, 8, 2]])
    found = np.linspace(1, 0.1, 9, dtype=np.float32).reshape(3, 3)
    monkeypatch.setattr(index, "_found", lambda _queries, _k: (found.copy(), rows.copy()))
    queries = np.ones((3, 4), np.float32)
    expected = [["e000007", "e000003"], ["e000005"], ["e000009", "e000008", "e000002"]]
    assert [[hit.id for hit in hits] for hits in index.search_many(queries, k=3)] == expected
    ids, scores = index.search_arrays(queries, k=3)
    assert [[each for each in row if each is not None] for row in ids.tolist()] == expected
    np.testing.assert_array_equal(np.isnan(scores), rows < 0)


def test_hits_outlive_the_version_that_they_came_from(tmp_path: Path) -> None:
    source = make_snapshot(clustered(50, 4), payloads=['{"n": 1}'] * 50)
    index = open_index(tmp_path, source)
    hits = index.search([1, 2, 3, 4])
    many = index.search_many([[1, 2, 3, 4]])
    index.close()
    gc.collect()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert [hit.payload for hit in hits] == [{"n": 1}] * 10
    assert many == [hits]


def test_threads_get_the_answers_that_one_thread_gets(tmp_path: Path) -> None:
    source = make_snapshot(clustered(2000, 16), payloads=["1"] * 2000)
    index = open_index(tmp_path, source, index="IVF16,Flat")
    queries = list(source.matrix[:400])
    expected = [index.search(query) for query in queries]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert list(pool.map(index.search, queries)) == expected


def test_a_search_leaves_the_callers_threads_as_they_are(index: VectorSearch) -> None:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        index.search([1, 2, 3, 4])
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


def test_a_closed_index_gives_its_files_back(tmp_path: Path) -> None:
    index = open_index(tmp_path, make_snapshot(clustered(1000, 16)), index="IVF16,Flat")
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    index.close()
    gc.collect()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    ("factory", "knob"),
    [
        ("IVF8,Flat", "nprobe"),
        ("IVF8,SQ8", "nprobe"),
        ("IVF8_HNSW4,Flat", "nprobe"),
        ("IVF8,PQ4x4", "nprobe"),
        ("IVF8,PQ4x4fs", "nprobe"),
        ("IVF8,RaBitQ", "nprobe"),
        ("PCA4,IVF8,Flat", "nprobe"),
        ("OPQ2,IVF8,PQ4x4", "nprobe"),
        ("IVF8,PQ4x4,RFlat", "nprobe"),
        ("OPQ2,IVF8,PQ4x4,RFlat", "nprobe"),
        ("HNSW4", "ef_search"),
        ("HNSW4,SQ8", "ef_search"),
        ("PCA4,HNSW4", "ef_search"),
        ("HNSW4,SQ8,RFlat", "ef_search"),
    ],
)
def test_the_effort_reaches_the_index_inside_every_nesting(factory: str, knob: str) -> None:
    vectors = np.random.default_rng(1).standard_normal((600, 8)).astype(np.float32)
    index = faiss.index_factory(8, factory)
    index.train(vectors)
    index.add(vectors)
    queries = (vectors + vectors[::-1]) / 2
    truth = faiss.knn(queries, vectors, 10)[1]

    def found(value: int) -> float:
        """True neighbours in a graph; in lists, whatever there is, as codes may hide neighbours."""
        effort = Effort.model_validate({knob: value, "k_factor": 2})
        parameters = search_parameters(index, effort)
        gc.collect()  # the parameters must keep alive what they refer to
        if knob == "nprobe":
            return float(np.mean(index.search(queries, 300, params=parameters)[1] >= 0))
        rows = index.search(queries, 10, params=parameters)[1]
        return float(np.mean([np.isin(a, b) for a, b in zip(rows, truth, strict=True)]))

    turned = knob_of(index)
    assert turned is not None
    assert turned.name == knob
    assert found(turned.most) > found(1) + 0.03


def test_payloads_beyond_a_limit_are_not_read_and_those_up_to_it_are(index: VectorSearch) -> None:
    query = index.vector("e000000")
    many = index.search_many([query, query], k=100, max_payload_bytes=2 * 16)
    assert [len(hits) for hits in many] == [100, 100]
    with pytest.raises(InvalidQueryError, match="more than 31 bytes"):
        index.search_many([query, query], k=100, max_payload_bytes=2 * 16 - 1)
    for ask in (
        partial(index.search, query, k=100),
        partial(index.search_by_id, "e000002", k=99),
    ):
        hits = ask()
        size = sum(len(json.dumps(hit.payload)) for hit in hits if hit.payload is not None)
        assert ask(max_payload_bytes=size) == hits
        with pytest.raises(InvalidQueryError, match=f"more than {size - 1} bytes; ask for fewer"):
            ask(max_payload_bytes=size - 1)
