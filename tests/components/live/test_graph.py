"""Graphs over live rows find what a comparison of all finds, and nothing that a view has not."""

import numpy as np
import pytest

from indexrelay.components.live.graph import (
    Comparison,
    GraphSizes,
    LiveGraph,
    LiveNeighbours,
    ScoredRow,
    grow_graph,
)
from indexrelay.components.live.rows import LiveRows, LiveView, Mask
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Changes, Entries, Vectors

DIMENSION = 16
MIN_RECALL = 0.9
CENTRES = np.random.default_rng(2).standard_normal((12, DIMENSION))
SIZES = GraphSizes(first=200, step=50)
QUERIES = 60
K = 5


def drawn(count: int, seed: int) -> Vectors:
    draw = np.random.default_rng(seed)
    near = CENTRES[draw.integers(0, len(CENTRES), count)]
    return (near + 0.6 * draw.standard_normal((count, DIMENSION))).astype(np.float32)


def new_rows(metric: Metric = Metric.COSINE, capacity: int = 4096) -> LiveRows:
    return LiveRows(epoch="e", floor=0, dimension=DIMENSION, metric=metric, capacity=capacity)


def put(rows: LiveRows, ids: list[str], *, seed: int, deletes: tuple[str, ...] = ()) -> LiveView:
    upserts = Entries(
        ids=ids,
        vectors=drawn(len(ids), seed),
        texts=[None] * len(ids),
        payloads=[None] * len(ids),
    )
    changes = [Changes(upserts=upserts, deletes=list(deletes))]
    rows.append(changes, rows.view.generation + 1)
    return rows.view


def named(first: int, end: int) -> list[str]:
    return [f"n{number}" for number in range(first, end)]


def alive_in(view: LiveView) -> Mask:
    alive = np.zeros(view.placed, dtype=bool)
    current = view.current(0)
    alive[view.rows.places[current[view.rows.present[current]]]] = True
    return alive


def neighbours(view: LiveView, *, graph: bool) -> LiveNeighbours:
    rows = view.rows
    return LiveNeighbours(
        view,
        Comparison(DIMENSION, rows.metric),
        alive=alive_in(view),
        graph=rows.graph if graph else None,
        min_recall=MIN_RECALL,
    )


def by_graph(near: LiveNeighbours) -> bool:
    return near.how != "scan"


def queries(metric: Metric) -> Vectors:
    asked = drawn(QUERIES, 99)
    if metric is Metric.COSINE:
        asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    return asked


def found_by(view: LiveView, *, graph: bool) -> list[list[ScoredRow]]:
    near = neighbours(view, graph=graph)
    assert by_graph(near) == graph
    return [near.nearest(query, K) for query in queries(view.rows.metric)]


def assert_enough_found(view: LiveView) -> None:
    """As much as is asked for; each with the score that a comparison gives, and one of an entry."""
    exact, found = found_by(view, graph=False), found_by(view, graph=True)
    alive, rows = alive_in(view), view.rows
    near = 0
    for wanted, hits in zip(exact, found, strict=True):
        scores = {row: score for score, row in wanted}
        assert len({row for _, row in hits}) == len(hits) == K
        assert all(alive[rows.places[row]] for _, row in hits)
        for score, row in hits:
            assert score == pytest.approx(scores.get(row, score), abs=1e-5)
        near += len(scores.keys() & {row for _, row in hits})
    assert near >= MIN_RECALL * K * len(exact)


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.L2, Metric.INNER_PRODUCT])
def test_a_graph_that_grows_finds_enough_and_older_ones_stay_as_they_are(metric: Metric) -> None:
    rows = new_rows(metric)
    view = put(rows, named(0, 150), seed=1)
    assert not grow_graph(rows, view.placed, SIZES), "too few to pay"
    early, answers = view, found_by(view, graph=False)
    for step in range(3):
        view = put(rows, named(150 + 300 * step, 450 + 300 * step), seed=2 + step)
        assert grow_graph(rows, view.placed, SIZES)
        assert_enough_found(put(rows, [f"behind{step}"], seed=50 + step))
        assert not grow_graph(rows, rows.view.placed, SIZES), "one row more is compared"
    assert found_by(early, graph=False) == answers
    first = rows.graph
    assert first is not None
    search = first.search(64, None)
    before = search.one_at_effort(queries(metric)[0], K)[1].tolist()
    grow_graph(rows, put(rows, named(2000, 2300), seed=9).placed, SIZES)
    assert rows.graph is not first
    assert search.one_at_effort(queries(metric)[0], K)[1].tolist() == before


def test_what_was_replaced_or_deleted_is_not_found_by_a_graph() -> None:
    rows = new_rows()
    put(rows, named(0, 600), seed=1)
    grow_graph(rows, rows.view.placed, SIZES)
    old = rows.view
    view = put(rows, named(0, 60), seed=2, deletes=tuple(named(500, 560)))
    assert_enough_found(view)
    grow_graph(rows, view.placed, SIZES)
    assert_enough_found(view)
    assert_enough_found(put(rows, [], seed=0, deletes=tuple(named(300, 310))))
    assert not by_graph(neighbours(old, graph=False))


def test_where_most_of_a_graph_was_replaced_all_rows_are_compared() -> None:
    rows = new_rows()
    put(rows, named(0, 300), seed=1)
    grow_graph(rows, rows.view.placed, SIZES)
    view = put(rows, named(0, 200), seed=2)
    near = neighbours(view, graph=True)
    assert not by_graph(near)
    exact = found_by(view, graph=False)
    assert [near.nearest(query, K) for query in queries(Metric.COSINE)] == exact


def test_a_graph_that_cannot_find_enough_is_not_used() -> None:
    # The nearest of long vectors without any structure are not found by a few links.
    count, dimension = 1500, 256
    vectors = np.random.default_rng(1).standard_normal((count, dimension)).astype(np.float32)
    rows = LiveRows(epoch="e", floor=0, dimension=dimension, metric=Metric.L2, capacity=count)
    ids: list[str] = named(0, count)
    entries = Entries(ids=ids, vectors=vectors, texts=[None] * count, payloads=[None] * count)
    rows.append([Changes(upserts=entries, deletes=[])], 1)
    assert grow_graph(rows, count, SIZES)
    graph = rows.graph
    assert graph is not None
    assert graph.effort(0.5) is not None
    assert graph.effort(0.999) is None
    comparison = Comparison(dimension, Metric.L2)
    for recall, used in ((0.5, True), (0.999, False)):
        near = LiveNeighbours(rows.view, comparison, alive=None, graph=graph, min_recall=recall)
        assert by_graph(near) == used


def test_rows_that_are_moved_keep_their_graph_and_their_numbers() -> None:
    rows = new_rows(capacity=700)
    put(rows, named(0, 600), seed=1)
    put(rows, named(0, 20), seed=2, deletes=("n30",))
    grow_graph(rows, rows.view.placed, SIZES)
    more = [Changes(upserts=_entries(named(600, 700), seed=3), deletes=[])]
    assert not rows.has_room(more)
    found, view = found_by(rows.view, graph=True), rows.view
    grown = rows.with_room(more)
    assert grown.has_room(more)
    rows.vectors[:] = np.nan  # nothing of it is read any more
    assert found_by(grown.view, graph=True) == found
    assert (grown.view.count, grown.entries, grown.view.generation) == (view.count, 600, 2)
    assert [grown.newest_row(each, grown.view) for each in ("n5", "n30", "n99")] == [605, 620, 99]
    grown.append(more, 3)
    assert_enough_found(grown.view)


def test_rows_that_were_mostly_replaced_are_moved_without_those() -> None:
    rows = new_rows(capacity=500)
    for seed in range(4):
        put(rows, named(0, 100), seed=seed)
    more = [Changes(upserts=_entries(named(100, 250), seed=5), deletes=[])]
    grown = rows.with_room(more)
    assert grown.view.count == grown.entries == 100
    assert grown.has_room(more)
    assert grown.floor == rows.floor


def test_more_hits_than_a_graph_is_made_for_are_compared() -> None:
    rows = new_rows()
    put(rows, named(0, 400), seed=1)
    grow_graph(rows, rows.view.placed, SIZES)
    query = queries(Metric.COSINE)[0]
    near = neighbours(rows.view, graph=True)
    assert near.nearest(query, 400) == neighbours(rows.view, graph=False).nearest(query, 400)
    assert len(near.nearest(query, 1000)) == 400


def test_only_rows_better_than_a_score_are_given() -> None:
    for metric in (Metric.COSINE, Metric.L2):
        rows = new_rows(metric)
        put(rows, named(0, 400), seed=1)
        grow_graph(rows, rows.view.placed, SIZES)
        put(rows, named(400, 420), seed=2)
        near = neighbours(rows.view, graph=True)
        for query in queries(metric)[:20]:
            every = near.nearest(query, 10)
            assert near.nearest(query, 10, worst=every[4][0]) == every[:4]
            assert near.nearest(query, 10, worst=every[0][0]) == []


def test_a_graph_made_in_one_go_is_tried_before_it_holds_all() -> None:
    vectors = drawn(500, 3)
    graph = LiveGraph.grown(None, vectors, 500, Metric.L2)
    assert graph.count == 500
    effort, least = graph.effort(MIN_RECALL), graph.effort(MIN_RECALL, 3)
    assert effort is not None
    assert least is not None
    assert least <= effort


def _entries(ids: list[str], *, seed: int) -> Entries:
    count = len(ids)
    return Entries(
        ids=ids, vectors=drawn(count, seed), texts=[None] * count, payloads=[None] * count
    )
