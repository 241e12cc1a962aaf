"""Sketches find the nearest among many matches of a filter."""

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.matches import LayerMatches
from indexrelay.components.served import VersionFiles
from indexrelay.components.vector_index import VectorSearch, planner, sketches
from indexrelay.components.vector_index.metrics import NearestRows
from indexrelay.components.vector_index.sketches import (
    SKETCHES,
    Sketches,
    nearest_sketches,
    write_sketches,
)
from indexrelay.schemas.settings import Metric
from tests.components.jobs import Row, as_previous, clustered, make_job, make_snapshot, run
from tests.components.vector_index.histories import History

ROWS, DIMENSION = 6_000, 60
FIELDS = {"even": "boolean", "tenth": "keyword"}


def payload(row: int) -> str:
    return json.dumps({"even": row % 2 == 0, "tenth": str(row % 10)})


def vectors_of(count: int, *, seed: int = 7) -> Any:
    return clustered(count, DIMENSION, clusters=40, spread=0.8, seed=seed)


@pytest.fixture(scope="module", params=[Metric.COSINE, Metric.L2])
def history(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> History:
    """A graph with sketches, and a delta and tombstones beside it."""
    source = make_snapshot(
        vectors_of(ROWS), metric=request.param, payloads=[payload(row) for row in range(ROWS)]
    )
    history = History(
        tmp_path_factory.mktemp("sketches"), source, index="HNSW16", filterable=FIELDS
    )
    upserts = {
        f"e{row:06d}": Row(vector=vector, payload=payload(row + 1))
        for row, vector in zip(range(0, ROWS, 50), vectors_of(ROWS // 50, seed=5), strict=True)
    }
    history.commit(upserts, [f"e{row:06d}" for row in range(4, ROWS, 90)])
    assert history.done.failed == []
    assert history.done.built.extends
    return history


@pytest.fixture
def by_sketches(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a graph were dear to search around others."""
    monkeypatch.setattr(planner, "compared", lambda *_: float(2 * ROWS))


def nearest_ids(history: History, queries: Any, field: str, value: object) -> list[list[str]]:
    """For each query the ids of the ten nearest matches, by the textbook."""
    rows = history.source.rows
    matching = [each for each in rows if json.loads(rows[each].payload or "{}")[field] == value]
    vectors = np.array([rows[each].vector for each in matching], dtype=np.float64)
    if history.source.metric is Metric.COSINE:
        far = -(queries @ vectors.T) / np.linalg.norm(vectors, axis=1)
    else:
        far = (vectors * vectors).sum(axis=1) - 2 * queries @ vectors.T
    return [[matching[at] for at in near[:10]] for near in np.argsort(far, axis=1)]


@pytest.mark.usefixtures("by_sketches")
def test_the_nearest_matches_are_found_among_the_nearest_sketches(history: History) -> None:
    """With the recall that was asked for, and never an entry that does not match or is gone."""
    found = 0
    queries = vectors_of(ROWS + 60)[ROWS:]
    with closing(history.open()) as search:
        wanted = nearest_ids(history, queries, "even", True)
        for query, ten in zip(queries, wanted, strict=True):
            hits = search.search(query, filter={"even": True}, explain=True)
            assert hits.explanation is not None
            assert hits.explanation.plan == "sketches"
            assert hits.explanation.candidates is not None
            assert hits.explanation.candidates < 0.6 * (hits.explanation.matches or 0)
            assert [hit.payload["even"] for hit in hits] == [True] * 10
            found += len({hit.id for hit in hits} & set(ten))
            assert all(hit.id in search for hit in hits)
        many = search.search_many(queries, filter={"even": True})
        alone = [search.search(query, filter={"even": True}) for query in queries]
        assert [[hit.id for hit in hits] for hits in many] == [
            [hit.id for hit in hits] for hits in alone
        ]
    assert found / 600 >= 0.95


@pytest.mark.usefixtures("by_sketches")
def test_few_matches_are_all_compared_beside_sketches_too(history: History) -> None:
    with closing(history.open()) as search:
        queries = vectors_of(1, seed=3)
        hits = search.search(queries[0], filter={"tenth": "3"}, explain=True)
        assert hits.explanation is not None
        assert hits.explanation.plan == "exact"
        assert [[hit.id for hit in hits]] == nearest_ids(history, queries, "tenth", "3")


@pytest.mark.usefixtures("by_sketches")
def test_more_hits_take_more_candidates(history: History) -> None:
    with closing(history.open()) as search:
        query = vectors_of(1, seed=3)[0]
        few, more = (
            search.search(query, k=k, filter={"even": True}, explain=True).explanation
            for k in (10, 15)
        )
        assert few is not None
        assert more is not None
        assert len(search.search(query, k=15, filter={"even": True})) == 15
        assert (more.candidates or 0) > (few.candidates or 0)
        all_ = search.search(query, k=ROWS, filter={"even": True}, explain=True)
        assert all_.explanation is not None
        assert all_.explanation.plan != "sketches"
        assert len(all_) == search.count({"even": True})


def test_a_base_that_is_named_again_keeps_its_sketches(history: History) -> None:
    names = history.done.files
    assert names[SKETCHES].stat().st_size < ROWS * DIMENSION // 2
    with closing(history.open()) as search:
        assert search.facts.sketched is not None
        assert search.facts.delta is not None


def test_a_version_whose_sketches_are_others_does_not_pass(
    tmp_path: Path, history: History
) -> None:
    job = make_job(tmp_path / "first", history.source)
    done = run(history.kind, job)
    assert done.failed == []
    wrong = tmp_path / "wrong.npy"
    shutil.copy(done.files[SKETCHES], wrong)
    content = bytearray(wrong.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    wrong.write_bytes(content)
    files = {**done.files, SKETCHES: wrong}
    failed = [each.name for each in history.kind.verify(job, done.built, files) if not each.passed]
    assert failed == ["sketches_match_vectors"]
    assert as_previous(job, done).files[SKETCHES] == done.files[SKETCHES]


def test_a_file_of_another_shape_is_refused(tmp_path: Path, history: History) -> None:
    cut = tmp_path / "cut.npy"
    cut.write_bytes(history.done.files[SKETCHES].read_bytes()[:-8])
    with pytest.raises(CorruptFileError, match="not what its shape takes"):
        VectorSearch({**history.done.files, SKETCHES: cut})
    without = {name: path for name, path in history.done.files.items() if name != SKETCHES}
    with pytest.raises(CorruptFileError, match="does not have it"):
        VectorSearch(VersionFiles(without))


@pytest.mark.parametrize("dimension", [1, 8, 13, 64])
def test_a_sketch_says_of_each_dimension_whether_it_is_above_the_mean(
    tmp_path: Path, dimension: int
) -> None:
    vectors = clustered(sketches._FEWEST_ROWS, dimension)
    nearest = NearestRows(vectors[:20], k=11, metric=Metric.L2)
    nearest.add(vectors)
    path = tmp_path / SKETCHES
    count = write_sketches(
        path, vectors, queries=vectors[:20], neighbours=nearest.rows[:, 1:], min_recall=0.9
    )
    if count is None:
        assert not path.exists()
        return
    opened = Sketches(path, rows=len(vectors), dimension=dimension)
    above = vectors > vectors.mean(axis=0)
    assert np.array_equal(np.unpackbits(opened.bits, axis=1)[:, :dimension], above)
    assert np.array_equal(opened.bits, opened.of(vectors))
    rows = np.array([1, 4, 4_999])
    some, two = (LayerMatches(each, None, len(vectors)) for each in (rows, rows[:2]))
    for _ in range(3):  # read, kept, and read from what is kept
        with opened.among(some) as first, opened.among(two) as second:
            assert np.array_equal(first, opened.bits[rows])
            assert np.array_equal(second, opened.bits[rows[:2]])
    assert some.sketches is not None
    near = nearest_sketches(opened.bits[7:8], opened.bits, 30)
    differing = (above != above[7]).sum(axis=1)
    assert near.tolist() == np.flatnonzero(differing <= np.sort(differing)[29]).tolist()


@pytest.mark.parametrize(("rows", "dimension"), [(sketches._FEWEST_ROWS - 1, 64), (6_000, 3)])
def test_there_are_none_where_they_would_gain_little(
    tmp_path: Path, rows: int, dimension: int
) -> None:
    """Beside few rows, and where eight cells hold all vectors."""
    vectors = np.random.default_rng(4).standard_normal((rows, dimension)).astype(np.float32)
    nearest = NearestRows(vectors[:20], k=51, metric=Metric.L2)
    nearest.add(vectors)
    path = tmp_path / SKETCHES
    assert not write_sketches(
        path, vectors, queries=vectors[:20], neighbours=nearest.rows[:, 1:], min_recall=0.95
    )
    assert not path.exists()


def test_the_candidates_have_the_recall_that_was_asked_for(tmp_path: Path) -> None:
    """Of every filter that is independent of the vectors: of all rows, of a half, of a tenth."""
    vectors, others = np.split(vectors_of(8_100), [8_000])
    queries = vectors[:100]
    nearest = NearestRows(queries, k=51, metric=Metric.L2)
    nearest.add(vectors)
    path = tmp_path / SKETCHES
    count = write_sketches(
        path, vectors, queries=queries, neighbours=nearest.rows[:, 1:], min_recall=0.9
    )
    assert count is not None
    opened = Sketches(path, rows=len(vectors), dimension=DIMENSION)
    for share in (1.0, 0.5, 0.1):
        rows = np.flatnonzero(np.random.default_rng(1).random(len(vectors)) < share)
        far = (vectors[rows] ** 2).sum(axis=1) - 2 * others @ vectors[rows].T
        true = np.argsort(far, axis=1)[:, :10]
        with opened.among(LayerMatches(rows, None, len(vectors))) as bits:
            found = [
                len(set(nearest_sketches(one[None, :], bits, count)) & set(ten))
                for one, ten in zip(opened.of(others), true, strict=True)
            ]
        assert np.mean(found) / 10 >= 0.9
