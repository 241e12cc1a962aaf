"""Base and delta are searched as one: nothing is found twice, and nothing nearer is left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexrelay.components.vector_index import delta_lists
from indexrelay.components.vector_index.index_search import lists_of_rows
from indexrelay.components.vector_index.search import BothLayers
from indexrelay.schemas.settings import Metric
from tests.components.jobs import clustered
from tests.components.vector_index.histories import (
    DIMENSION,
    ROWS,
    History,
    changed,
    rows,
    snapshot,
)


@pytest.mark.parametrize("factory", ["IVF16,Flat", "IVF16_HNSW8,Flat", "IVF16,SQ8", "IVF16,PQ8x4"])
@pytest.mark.parametrize("metric", Metric)
def test_lists_that_base_and_delta_share_give_what_two_searches_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str, metric: Metric
) -> None:
    monkeypatch.setattr(delta_lists, "_SCANNED_BESIDE_LISTS", 20)
    history = History(tmp_path, snapshot(metric), index=factory, min_recall=0.1)
    history.commit(rows(100, seed=3), history.source.ids[:50])
    index = history.open()
    queries = clustered(20, DIMENSION, clusters=12, spread=0.8, seed=8)
    shared = [index.search(query, k=k) for query in queries for k in (1, 10, 300)]
    search = index._search
    assert isinstance(search, BothLayers)
    assert search._shared is not None
    search._shared = None
    apart = [index.search(query, k=k) for query in queries for k in (1, 10, 300)]
    assert shared == apart
    assert any(hit.id.startswith("new") for hits in shared for hit in hits)


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "HNSW16"])
@pytest.mark.parametrize("metric", Metric)
def test_one_query_in_both_layers_gives_what_the_way_of_many_gives(
    tmp_path: Path, metric: Metric, factory: str
) -> None:
    history = History(tmp_path, snapshot(metric), index=factory, min_recall=0.5)
    history.commit(rows(60, seed=3), history.source.ids[:30])
    index = history.open()
    queries = clustered(40, DIMENSION, clusters=12, spread=0.8, seed=8)
    for k in (1, 10, 70, 2000):
        # One by one: where one of many finds too few, all are searched with more effort.
        many = [index.search_many(query[None, :], k=k)[0] for query in queries]
        ones = [index.search(query, k=k) for query in queries]
        assert [[hit.id for hit in hits] for hits in ones] == [
            [hit.id for hit in hits] for hits in many
        ]
        assert [[hit.payload for hit in hits] for hits in ones] == [
            [hit.payload for hit in hits] for hits in many
        ]
    assert any(hit.id.startswith("new") for hits in ones for hit in hits)


def test_rows_of_the_delta_do_not_replace_nearer_ones_of_the_base(tmp_path: Path) -> None:
    """However many hits are wanted, more than the tuned effort finds in the base included."""
    history = History(tmp_path, snapshot(Metric.L2), index="IVF16,Flat", min_recall=0.5)
    far = {
        entry_id: replace(row, vector=row.vector + 100)
        for entry_id, row in rows(100, seed=9).items()
    }
    assert history.commit(far).built.extends
    search = history.open()
    query = history.source.matrix[7]
    for k in range(20, ROWS, 20):
        hits = search.search(query, k=k)
        assert len(hits) == k
        assert [hit.id for hit in hits if hit.id in far] == []
    search.close()


@pytest.mark.parametrize("factory", ["IVF16,Flat", "IVF16,SQ8", "IVF16,PQ8x4"])
def test_rows_that_stay_in_the_delta_stay_in_the_list_that_is_nearest_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    monkeypatch.setattr(delta_lists, "_SCANNED_BESIDE_LISTS", 20)
    history = History(tmp_path, snapshot(Metric.L2), index=factory, min_recall=0.1, max_delta=0.5)
    history.commit(rows(60, seed=3))
    history.commit(rows(30, seed=4, like="b"), ["new0003", "new0044"])
    done = history.commit(changed(history.source, ["new0005", "b0007"], seed=5), ["b0001"])
    assert (done.failed, done.built.details["delta"]) == ([], 87)
    delta = history.open().contents.delta
    assert delta is not None
    _, nearest = delta.index.quantizer.search(np.ascontiguousarray(delta.vectors), 1)
    np.testing.assert_array_equal(lists_of_rows(delta.index), nearest[:, 0])


def test_the_bytes_of_payloads_are_counted_in_both_layers(tmp_path: Path) -> None:
    history = History(tmp_path, snapshot(Metric.L2), index="Flat", min_recall=0.5)
    assert history.commit(rows(20, seed=9)).built.extends
    contents = history.open().contents
    assert contents.delta is not None
    wanted = np.array([0, contents.first_of_delta, 5, contents.first_of_delta + 19, 3])
    texts = contents.payload_texts_of(wanted)
    assert contents.payload_bytes_of(wanted) == sum(len(text or "") for text in texts) > 0
    assert contents.payload_bytes_of(wanted[:0]) == 0
