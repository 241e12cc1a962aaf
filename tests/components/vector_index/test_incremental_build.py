"""A version that continues another: what it writes, which files it names again, its answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.components.errors import ClosedVersionError, UnknownEntryError
from indexrelay.components.vector_index import delta_lists
from indexrelay.components.vector_index.index_search import lists_of_rows
from indexrelay.components.vector_index.mapped_index import open_index
from indexrelay.components.vector_index.version import DELTA_INDEX, TRAINED
from indexrelay.schemas.settings import Metric
from tests.components.jobs import clustered
from tests.components.vector_index.histories import (
    DIMENSION,
    ROWS,
    History,
    brute_force,
    changed,
    rows,
    snapshot,
)

EXTENSIBLE: dict[str, float] = {
    "auto": 1.0,
    "Flat": 1.0,
    "IVF16,Flat": 0.95,
    "IVF16_HNSW8,Flat": 0.95,
    "HNSW16": 0.95,
    "RR16,IVF16,Flat": 0.95,
    "PCA12,IVF16,Flat": 0.3,
    "SQ8": 0.9,
    "SQfp16": 0.95,
    "IVF16,SQ8": 0.9,
    "IVF16,SQfp16": 0.95,
    "IVF16,PQ8x4": 0.2,
    "IVF16,PQ8x4fs": 0.2,
    "IVF16,RaBitQ": 0.1,
    "HNSW16,SQ8": 0.9,
    "IVF16,SQ4,Refine(SQfp16)": 0.9,
    "IVF16,PQ8x4,RFlat": 0.9,
}
REFUSING = ["PQ8x4", "NSG16"]


@pytest.mark.parametrize(
    ("factory", "metric"),
    [(factory, Metric.L2) for factory in EXTENSIBLE]
    + [(factory, Metric.COSINE) for factory in ("auto", "IVF16,Flat", "HNSW16")]
    + [("IVF16,Flat", Metric.INNER_PRODUCT)],
)
def test_every_type_that_can_be_searched_around_tombstones_is_extended(
    tmp_path: Path, factory: str, metric: Metric
) -> None:
    history = History(tmp_path, snapshot(metric), index=factory, min_recall=EXTENSIBLE[factory])
    source = history.source
    names = source.ids
    first = history.done
    history.commit(rows(30, seed=3) | changed(source, names[5:25], seed=4), names[100:120])
    done = history.commit(rows(10, seed=5, like="newer"), [names[200], "new0003"])
    assert done.failed == []
    assert done.built.extends
    assert done.built.details["delta"] == 30 + 20 + 10 - 1
    assert done.built.details["tombstones"] == 20 + 20 + 1
    for name in ("base.faiss", "ids.table", "payloads.table"):
        assert done.files[name] == first.files[name]

    index = history.open()
    assert len(index) == ROWS + 30 - 20 + 10 - 2 == len(index.ids)
    assert list(index.ids) == history.source.ids
    for gone in (names[100], names[119], names[200], "new0003"):
        assert gone not in index
        with pytest.raises(UnknownEntryError):
            index.vector(gone)
    for entry_id in (names[5], "new0001", "newer0000", names[50]):
        row = history.source.rows[entry_id]
        true = row.vector / (np.linalg.norm(row.vector) if metric is Metric.COSINE else 1)
        np.testing.assert_allclose(index.vector(entry_id), true, rtol=1e-6)
        assert index.payload(entry_id) == (row.payload and json.loads(row.payload))
    live = set(history.source.ids)
    for position in range(0, len(index), 37):
        query = index.vector_at(position)
        hits = index.search(query, k=20)
        assert len(hits) == 20
        assert {hit.id for hit in hits} <= live
    if factory in ("auto", "Flat"):
        for seed in range(5):
            query = clustered(1, DIMENSION, seed=seed)[0]
            np.testing.assert_allclose(
                [hit.score for hit in index.search(query, k=50)],
                brute_force(history.source, query, 50),
                rtol=1e-4,
                atol=1e-4,
            )


@pytest.mark.parametrize("factory", REFUSING)
def test_an_index_that_ignores_selectors_is_built_in_full(tmp_path: Path, factory: str) -> None:
    history = History(tmp_path, snapshot(), index=factory, min_recall=0.1)
    done = history.commit(rows(5, seed=3))
    assert not done.built.extends
    assert done.failed == []
    assert factory in done.built.details["build"]["reason"]
    assert len(history.open()) == ROWS + 5


def test_a_delta_of_many_rows_is_an_index_of_the_bases_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta_lists, "_SCANNED_BESIDE_LISTS", 20)
    history = History(tmp_path, snapshot(Metric.L2), index="IVF16,Flat", max_delta=0.2)
    done = history.commit(rows(20, seed=3))
    assert DELTA_INDEX not in done.files
    done = history.commit(rows(100, seed=4, like="more"))
    assert done.failed == []
    assert DELTA_INDEX in done.files
    assert len(history.open().search(np.ones(DIMENSION), k=1000)) == 1000


@pytest.mark.parametrize("factory", ["HNSW16", "HNSW16,SQfp16", "HNSW16,SQ8,RFlat"])
@pytest.mark.parametrize("metric", [Metric.L2, Metric.COSINE])
def test_a_delta_of_many_rows_beside_a_graph_lies_in_lists_that_rows_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str, metric: Metric
) -> None:
    monkeypatch.setattr(delta_lists, "_SCANNED_BESIDE_LISTS", 50)
    keys = {"index": factory, "max_delta": 0.3, "max_tombstones": 0.3}
    history = History(tmp_path, snapshot(metric), **keys)
    assert open_index(history.done.files[TRAINED]).ntotal == 0
    done = history.commit(rows(50, seed=3), history.source.ids[:30])
    assert DELTA_INDEX not in done.files
    names = history.source.ids
    history.commit(rows(200, seed=4, like="more") | changed(history.source, names[:9], seed=5))
    kept = _lists_of_the_delta(history)
    done = history.commit(rows(30, seed=6, like="most"), ["more0007"])
    assert done.failed == []
    assert done.built.extends
    index = history.open()
    now = _lists_of_the_delta(history)
    assert len(now) == 50 + 200 + 9 + 30 - 1
    assert all(now[name] == within for name, within in kept.items() if name in now)
    live = set(history.source.ids)
    found = 0
    asked = history.source.matrix[::20]
    for query in asked:
        hits = index.search(query, k=10)
        assert {hit.id for hit in hits} <= live
        farthest = brute_force(history.source, query, 10)[-1]
        sign = 1 if metric is Metric.L2 else -1
        found += sum(sign * hit.score <= sign * farthest + 1e-4 for hit in hits)
    assert found >= 0.88 * 10 * len(asked)  # of 0.95; the new rows lie elsewhere


def _lists_of_the_delta(history: History) -> dict[str, int]:
    contents = history.open().contents
    assert contents.delta is not None
    assert contents.ids.delta is not None
    assert type(contents.delta.index).__name__ == "IndexIVFFlat"
    return dict(zip(contents.ids.delta, lists_of_rows(contents.delta.index).tolist(), strict=True))


def test_beside_a_graph_whose_deltas_stay_small_there_are_no_lists(tmp_path: Path) -> None:
    history = History(tmp_path, snapshot(), index="HNSW16")
    assert TRAINED not in history.done.files
    done = history.commit(rows(60, seed=3))
    assert done.built.extends
    assert done.failed == []
    assert DELTA_INDEX not in done.files


def test_entries_that_are_given_again_as_they_are_change_nothing(tmp_path: Path) -> None:
    history = History(tmp_path, snapshot(), index="IVF16,Flat")
    first = history.done
    done = history.commit(dict(history.source.rows))
    assert done.built.extends
    assert done.failed == []
    assert done.files == first.files
    some = dict(list(history.source.rows.items())[:500])
    done = history.commit(some | rows(1, seed=9))
    assert (done.built.details["delta"], done.built.details["tombstones"]) == (1, 0)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"max_delta": 0.01}, "max_delta"),
        ({"max_delta": 1.0, "max_tombstones": 0.01}, "max_tombstones"),
        ({"max_delta": 0.0, "max_tombstones": 0.0}, "more of the base"),
    ],
)
def test_a_delta_or_tombstones_beyond_their_limits_cause_a_full_build(
    tmp_path: Path, keys: dict[str, Any], reason: str
) -> None:
    history = History(tmp_path, snapshot(), index="IVF16,Flat", **keys)
    done = history.commit(changed(history.source, history.source.ids[:20], seed=4))
    assert not done.built.extends
    assert reason in done.built.details["build"]["reason"]
    assert (done.built.details["delta"], done.failed) == (0, [])


def test_an_entry_that_comes_and_goes_leaves_nothing_behind(tmp_path: Path) -> None:
    history = History(tmp_path, snapshot())
    history.commit(rows(10, seed=3))
    done = history.commit(deletes=[f"new{number:04d}" for number in range(10)])
    assert (done.built.details["delta"], done.built.details["tombstones"]) == (0, 0)
    assert done.failed == []
    index = history.open()
    assert list(index.ids) == history.source.ids
    assert len(index.search(np.ones(DIMENSION), k=5)) == 5


def test_a_deleted_entry_can_come_back(tmp_path: Path) -> None:
    history = History(tmp_path, snapshot())
    name = history.source.ids[7]
    before = history.source.rows[name]
    history.commit(deletes=[name])
    assert name not in history.open()
    done = history.commit({name: before})
    assert done.failed == []
    assert done.built.extends
    np.testing.assert_array_equal(
        history.open().vector(name), before.vector / np.linalg.norm(before.vector)
    )


def test_the_carried_sample_is_the_one_that_an_exact_search_gives(tmp_path: Path) -> None:
    history = History(tmp_path, snapshot(Metric.L2, rows=300), max_delta=1.0, max_tombstones=1.0)
    rng = np.random.default_rng(3)
    for batch in range(6):
        names = history.source.ids
        gone = rng.choice(names, size=25, replace=False).tolist()
        moved = [n for n in rng.choice(names, size=20, replace=False).tolist() if n not in gone]
        history.commit(
            rows(15, seed=batch, like=f"b{batch}-") | changed(history.source, moved, seed=batch),
            gone,
        )
        assert history.done.failed == []
        assert history.done.built.extends
        _check_sample(history)


def _check_sample(history: History) -> None:
    with np.load(history.done.files["sample.npz"]) as file:
        sample = {name: file[name] for name in file.files}
    contents = history.open().contents
    everything = np.vstack([contents.vector(contents.row(name)) for name in history.source.ids])
    for row, vector, claimed in zip(
        sample["rows"], sample["vectors"], sample["distances"], strict=True
    ):
        true = np.sort(((everything.astype(np.float64) - vector) ** 2).sum(axis=1))
        others = true[1:] if row >= 0 else true
        known = np.isfinite(claimed)
        assert known.sum() >= 10
        np.testing.assert_allclose(claimed[known], others[: known.sum()], rtol=1e-5, atol=1e-6)


def test_readers_share_the_base_from_version_to_version(tmp_path: Path) -> None:
    history = History(tmp_path, snapshot(), index="IVF16,Flat")
    first = history.open()
    for number in range(4):
        first.search(np.ones(DIMENSION) + number)
    history.commit(rows(10, seed=3))
    second = history.kind.reload(history.done.files, first)
    assert second.contents.base is first.contents.base
    assert len(second.recent_queries) == 4
    first.close()
    with pytest.raises(ClosedVersionError):
        first.search(np.ones(DIMENSION))
    assert len(second.search(np.ones(DIMENSION))) == 10
    anew = History(tmp_path / "anew", history.source, index="IVF16,Flat")
    third = history.kind.reload(anew.done.files, second)
    assert third.contents.base is not second.contents.base
