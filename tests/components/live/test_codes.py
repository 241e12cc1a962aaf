"""Codes of live rows find what a comparison of all finds, and nothing that a view has not."""

import numpy as np
import pytest

from indexrelay.components.live.codes import (
    CodeSizes,
    LiveCodes,
    LiveNeighbours,
    ScoredRow,
    grow_codes,
)
from indexrelay.components.live.comparison import Comparison
from indexrelay.components.live.rows import LiveRows, LiveView, Mask
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Changes, Entries, Vectors

DIMENSION = 16
MIN_RECALL = 0.9
CENTRES = np.random.default_rng(2).standard_normal((12, DIMENSION))
SIZES = CodeSizes(first=200, step=50)
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


def neighbours(view: LiveView, *, codes: bool) -> LiveNeighbours:
    rows = view.rows
    return LiveNeighbours(
        view,
        Comparison(DIMENSION, rows.metric),
        alive=alive_in(view),
        codes=rows.codes if codes else None,
        min_recall=MIN_RECALL,
    )


def by_codes(near: LiveNeighbours) -> bool:
    return near.how != "scan"


def queries(metric: Metric) -> Vectors:
    asked = drawn(QUERIES, 99)
    if metric is Metric.COSINE:
        asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    return asked


def found_by(view: LiveView, *, codes: bool) -> list[list[ScoredRow]]:
    near = neighbours(view, codes=codes)
    assert by_codes(near) == codes
    return [near.nearest(query, K) for query in queries(view.rows.metric)]


def assert_enough_found(view: LiveView) -> None:
    """As much as is asked for; each with the score that a comparison gives, and one of an entry."""
    exact, found = found_by(view, codes=False), found_by(view, codes=True)
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
def test_codes_of_more_rows_find_enough_and_older_ones_stay_as_they_are(
    metric: Metric,
) -> None:
    rows = new_rows(metric)
    view = put(rows, named(0, 150), seed=1)
    assert not grow_codes(rows, view.placed, SIZES), "too few to pay"
    early, answers = view, found_by(view, codes=False)
    for step in range(3):
        view = put(rows, named(150 + 300 * step, 450 + 300 * step), seed=2 + step)
        assert grow_codes(rows, view.placed, SIZES)
        assert_enough_found(put(rows, [f"behind{step}"], seed=50 + step))
        assert not grow_codes(rows, rows.view.placed, SIZES), "one row more is compared"
    assert found_by(early, codes=False) == answers
    first, older = rows.codes, neighbours(rows.view, codes=True)
    before = [older.nearest(query, K) for query in queries(metric)]
    assert grow_codes(rows, put(rows, named(2000, 2300), seed=9).placed, SIZES)
    assert rows.codes is not first
    assert [older.nearest(query, K) for query in queries(metric)] == before


def test_what_was_replaced_or_deleted_is_not_found_by_codes() -> None:
    rows = new_rows()
    put(rows, named(0, 600), seed=1)
    grow_codes(rows, rows.view.placed, SIZES)
    old = rows.view
    view = put(rows, named(0, 60), seed=2, deletes=tuple(named(500, 560)))
    assert_enough_found(view)
    grow_codes(rows, view.placed, SIZES)
    assert_enough_found(view)
    assert_enough_found(put(rows, [], seed=0, deletes=tuple(named(300, 310))))
    assert not by_codes(neighbours(old, codes=False))


def test_where_most_rows_with_codes_were_replaced_all_rows_are_compared() -> None:
    rows = new_rows()
    put(rows, named(0, 300), seed=1)
    grow_codes(rows, rows.view.placed, SIZES)
    view = put(rows, named(0, 200), seed=2)
    near = neighbours(view, codes=True)
    assert not by_codes(near)
    exact = found_by(view, codes=False)
    assert [near.nearest(query, K) for query in queries(Metric.COSINE)] == exact


def test_codes_that_cannot_find_enough_are_not_used() -> None:
    # The nearest of long vectors without any structure are not found by short codes.
    count, dimension = 1500, 256
    vectors = np.random.default_rng(1).standard_normal((count, dimension)).astype(np.float32)
    rows = LiveRows(epoch="e", floor=0, dimension=dimension, metric=Metric.L2, capacity=count)
    ids: list[str] = named(0, count)
    entries = Entries(ids=ids, vectors=vectors, texts=[None] * count, payloads=[None] * count)
    rows.append([Changes(upserts=entries, deletes=[])], 1)
    assert grow_codes(rows, count, SIZES)
    codes = rows.codes
    assert codes is not None
    assert codes.candidates(0.5) is not None
    assert codes.candidates(0.999) is None
    comparison = Comparison(dimension, Metric.L2)
    for recall, used in ((0.5, True), (0.999, False)):
        near = LiveNeighbours(rows.view, comparison, alive=None, codes=codes, min_recall=recall)
        assert by_codes(near) == used


def test_rows_that_are_moved_keep_their_codes_and_their_numbers() -> None:
    rows = new_rows(capacity=700)
    put(rows, named(0, 600), seed=1)
    put(rows, named(0, 20), seed=2, deletes=("n30",))
    grow_codes(rows, rows.view.placed, SIZES)
    more = [Changes(upserts=_entries(named(600, 700), seed=3), deletes=[])]
    assert not rows.has_room(more)
    found, view = found_by(rows.view, codes=True), rows.view
    grown = rows.with_room(more)
    assert grown.has_room(more)
    rows.vectors[:] = np.nan  # nothing of it is read any more
    assert found_by(grown.view, codes=True) == found
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


def test_an_entry_that_was_replaced_again_and_again_hides_no_other_one() -> None:
    rows = new_rows()
    put(rows, named(0, 1200), seed=1)
    nearest = rows.vectors[[7]]
    again = Entries(ids=["n7"], vectors=nearest, texts=[None], payloads=[None])
    for generation in range(2, 300):
        rows.append([Changes(upserts=again, deletes=[])], generation)
    grow_codes(rows, rows.view.placed, SIZES)
    near, exact = neighbours(rows.view, codes=True), neighbours(rows.view, codes=False)
    assert by_codes(near)
    found = near.nearest(nearest[0], K)
    assert found[0][1] == rows.view.count - 1
    assert len({row for _, row in found}) == K
    assert found == exact.nearest(nearest[0], K)


@pytest.mark.parametrize("dimension", [1, 7, 97, 130])
def test_vectors_of_any_length_have_codes(dimension: int) -> None:
    draw = np.random.default_rng(3)
    vectors = draw.standard_normal((400, dimension)).astype(np.float32)
    codes = LiveCodes.grown(None, vectors, 400, Metric.L2)
    assert codes.count == 400
    assert codes.index.d - dimension < codes.index.pq.dsub
    assert codes.candidates(0.5) is not None
    rows = LiveRows(epoch="e", floor=0, dimension=dimension, metric=Metric.L2)
    entries = Entries(ids=named(0, 400), vectors=vectors, texts=[None] * 400, payloads=[None] * 400)
    rows.append([Changes(upserts=entries, deletes=[])], 1)
    near = LiveNeighbours(
        rows.view, Comparison(dimension, Metric.L2), alive=None, codes=codes, min_recall=0.5
    )
    assert by_codes(near)
    some = range(0, 400, 20)
    assert sum(near.nearest(vectors[row], 1)[0] == (0.0, row) for row in some) > len(some) / 2


def test_more_hits_than_codes_are_made_for_are_compared() -> None:
    rows = new_rows()
    put(rows, named(0, 400), seed=1)
    grow_codes(rows, rows.view.placed, SIZES)
    query = queries(Metric.COSINE)[0]
    near = neighbours(rows.view, codes=True)
    assert near.nearest(query, 400) == neighbours(rows.view, codes=False).nearest(query, 400)
    assert len(near.nearest(query, 1000)) == 400


def test_only_rows_better_than_a_score_are_given() -> None:
    for metric in (Metric.COSINE, Metric.L2):
        rows = new_rows(metric)
        put(rows, named(0, 400), seed=1)
        grow_codes(rows, rows.view.placed, SIZES)
        put(rows, named(400, 420), seed=2)
        near = neighbours(rows.view, codes=True)
        for query in queries(metric)[:20]:
            every = near.nearest(query, 10)
            assert near.nearest(query, 10, worst=every[4][0]) == every[:4]
            assert near.nearest(query, 10, worst=every[0][0]) == []


def test_codes_made_in_one_go_are_tried_before_they_hold_all() -> None:
    vectors = drawn(500, 3)
    codes = LiveCodes.grown(None, vectors, 500, Metric.L2)
    assert codes.count == 500
    effort, least = codes.candidates(MIN_RECALL), codes.candidates(MIN_RECALL, 3)
    assert effort is not None
    assert least is not None
    assert least <= effort


def _entries(ids: list[str], *, seed: int) -> Entries:
    count = len(ids)
    return Entries(
        ids=ids, vectors=drawn(count, seed), texts=[None] * count, payloads=[None] * count
    )
