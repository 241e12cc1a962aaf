"""A quick index first, the best one behind it, the whole way from a batch to a reader."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from indexrelay.components.vector_index import selection
from indexrelay.health.judge import judge
from indexrelay.health.status import Condition
from indexrelay.health.survey import Survey
from indexrelay.rebuilder import Rebuilder
from indexrelay.rebuilder.builds.runner import ForkingRunner
from indexrelay.schemas.versions import VersionManifest
from indexrelay.testing import MakePipeline, Pipeline

DIMENSION, COUNT = 128, 6_000
SETTINGS: dict[str, Any] = {
    "collections": {"tracks": {"dimension": DIMENSION, "metric": "l2"}},
    "components": {"similar": {"kind": "vector_index", "from": "tracks"}},
}


@pytest.fixture
def pipeline(indexrelay_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """One in which a collection of a few thousand entries gets a quick version first."""
    monkeypatch.setattr(selection, "_SOON_VALUES", 0)
    return indexrelay_pipeline(**SETTINGS)


def vectors(count: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((50, DIMENSION))
    rows = centres[rng.integers(0, 50, count)] + rng.standard_normal((count, DIMENSION))
    return rows.astype(np.float32)


def commit(pipeline: Pipeline, ids: list[str], *, seed: int, deletes: tuple[str, ...] = ()) -> Any:
    """A batch; its vectors."""
    given = vectors(len(ids), seed)
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(ids, given, payloads=[{"of": seed} for _ in ids])
        batch.delete(deletes)
    return given


def first(pipeline: Pipeline) -> Any:
    """The first batch, of most of the entries."""
    return commit(pipeline, [f"t{row:05d}" for row in range(COUNT)], seed=1)


def step(pipeline: Pipeline) -> bool:
    """A pass as a rebuilder that runs makes it, and a look of each reader."""
    result = pipeline.rebuilder.step(quick=True)
    pipeline.reader("a").step()
    return result is not None


def served(pipeline: Pipeline) -> VersionManifest:
    with pipeline.reader("a").acquire() as snapshot:
        return snapshot.manifest("similar")


def nearest(pipeline: Pipeline, vector: Any) -> str:
    with pipeline.reader("a").acquire() as snapshot:
        found: str = snapshot["similar"].search(vector, k=1)[0].id
        return found


def test_the_first_index_is_the_one_that_is_ready_soonest_and_the_best_one_follows(
    pipeline: Pipeline,
) -> None:
    given = first(pipeline)
    assert step(pipeline)
    quick = served(pipeline)
    assert "ready soonest" in quick.details["provisional"]
    assert quick.details["build"]["mode"] == "full"
    assert nearest(pipeline, given[17]) == "t00017"
    assert not step(pipeline)
    assert pipeline.rebuilder.improve()
    assert step(pipeline)
    best = served(pipeline)
    assert "provisional" not in best.details
    assert best.covers == quick.covers
    assert best.files["base.faiss"] != quick.files["base.faiss"]
    assert len(best.details["attempts"]) > len(quick.details["attempts"])
    (gate,) = [check for check in best.checks if check.name == "no_slower_ms"]
    assert gate.passed
    assert gate.measured is not None
    assert gate.limit is not None
    assert nearest(pipeline, given[17]) == "t00017"
    assert not step(pipeline)
    assert not pipeline.rebuilder.improve()


def test_what_was_committed_meanwhile_is_in_the_better_index(pipeline: Pipeline) -> None:
    first(pipeline)
    step(pipeline)
    assert pipeline.rebuilder.improve()
    fresh = commit(pipeline, ["new", "t00003"], seed=2, deletes=("t00004",))
    assert step(pipeline)
    best = served(pipeline)
    assert "provisional" not in best.details
    assert best.covers == {"tracks": 2}
    assert (best.details["delta"], best.details["tombstones"]) == (2, 2)
    assert best.details["build"]["mode"] == "incremental"
    assert nearest(pipeline, fresh[0]) == "new"
    assert nearest(pipeline, fresh[1]) == "t00003"
    with pipeline.reader("a").acquire() as snapshot:
        assert "t00004" not in snapshot["similar"]


def test_a_small_collection_gets_the_best_index_at_once_and_is_built_once(
    indexrelay_pipeline: MakePipeline,
) -> None:
    pipeline = indexrelay_pipeline(**SETTINGS)
    first(pipeline)
    step(pipeline)
    assert "provisional" not in served(pipeline).details
    assert not pipeline.rebuilder.improve()
    assert not step(pipeline)


def test_a_component_may_wait_for_the_best_index(
    indexrelay_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_SOON_VALUES", 0)
    similar = {**SETTINGS["components"]["similar"], "quick_first": False}
    pipeline = indexrelay_pipeline(**{**SETTINGS, "components": {"similar": similar}})
    first(pipeline)
    step(pipeline)
    assert "provisional" not in served(pipeline).details
    assert not pipeline.rebuilder.improve()


def test_a_base_is_extended_beyond_its_limits_while_the_next_one_is_built_behind_it(
    pipeline: Pipeline,
) -> None:
    first(pipeline)
    pipeline.rebuild()  # the best at once
    pipeline.reader("a").step()
    base = served(pipeline).files["base.faiss"]
    many = [f"more{row}" for row in range(COUNT // 8)]  # more than max_delta allows
    commit(pipeline, many, seed=3)
    assert step(pipeline)
    outgrown = served(pipeline)
    assert outgrown.files["base.faiss"] == base
    assert "more than 10% of the base (max_delta)" in outgrown.details["outgrown"]
    assert pipeline.rebuilder.improve()
    last = commit(pipeline, ["last"], seed=4)
    assert step(pipeline)
    compacted = served(pipeline)
    assert compacted.files["base.faiss"] != base
    assert "outgrown" not in compacted.details
    assert (compacted.details["base"], compacted.details["delta"]) == (COUNT + len(many), 1)
    assert nearest(pipeline, last[0]) == "last"
    assert not pipeline.rebuilder.improve()


def test_what_changes_most_of_a_collection_at_once_gets_a_quick_index_again(
    pipeline: Pipeline,
) -> None:
    first(pipeline)
    pipeline.rebuild()
    commit(pipeline, [f"more{row}" for row in range(COUNT // 2)], seed=3)
    assert step(pipeline)
    assert "provisional" in served(pipeline).details
    assert served(pipeline).details["build"]["mode"] == "full"
    assert pipeline.rebuilder.improve()
    assert step(pipeline)
    assert "provisional" not in served(pipeline).details


def test_status_says_what_is_to_be_improved_and_that_all_is_well_beside_it(
    pipeline: Pipeline,
) -> None:
    first(pipeline)
    step(pipeline)
    survey = Survey.opened(
        pipeline.settings,
        catalog=pipeline.catalog,
        store=pipeline.store,
        connection=pipeline.connection,
        clock=pipeline.clock,
    )
    verdict = judge(survey.whole())
    health = verdict.components["similar"]
    assert health.condition is Condition.CURRENT
    assert health.improvement is not None
    assert "ready soonest" in health.improvement.reason
    assert not [problem for problem in verdict.problems if problem.subject == "similar"]
    (note,) = [each for each in verdict.notes if "similar serves" in each]
    assert note.endswith("a rebuilder does it when it builds nothing else")


def test_a_hybrid_index_gets_a_quick_half_first(
    indexrelay_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "_SOON_VALUES", 0)
    pipeline = indexrelay_pipeline(
        collections=SETTINGS["collections"],
        components={"similar": {"kind": "search", "from": "tracks"}},
    )
    with pipeline.producer.batch("tracks") as batch:
        ids = [f"t{row:05d}" for row in range(COUNT)]
        given = vectors(COUNT, seed=1)
        batch.upsert(ids, given, texts=[f"track number {row}" for row in range(COUNT)])

    def half() -> dict[str, Any]:
        details: dict[str, Any] = served(pipeline).details["parts"]["vector"]["details"]
        return details

    assert step(pipeline)
    assert "ready soonest" in half()["provisional"]
    assert pipeline.rebuilder.improve()
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(["new"], vectors(1, seed=2), texts=["something else"])
    assert step(pipeline)
    assert "provisional" not in half()
    assert half()["build"]["mode"] == "incremental"
    with pipeline.reader("a").acquire() as snapshot:
        search = snapshot["similar"]
        assert search.search(vector=given[5], text="number 5", k=1)[0].id == "t00005"
        assert search.search(text="something else", k=1)[0].id == "new"
    assert not pipeline.rebuilder.improve()


def test_an_improvement_is_built_in_a_process_of_its_own_beside_batches(
    indexrelay_pipeline: MakePipeline,
) -> None:
    pipeline = indexrelay_pipeline(**SETTINGS)
    rebuilder = Rebuilder(
        pipeline.settings,
        catalog=pipeline.catalog,
        store=pipeline.store,
        connection=pipeline.connection,
        runner=ForkingRunner(
            preload=["faiss", "indexrelay.components.vector_index", "tests.fixtures.quick_for_few"],
            threads=1,
            niceness=0,
        ),
        rebuilder_id="forking",
    )
    try:
        first(pipeline)
        assert rebuilder.step(quick=True) is not None
        pipeline.reader("a").step()
        assert "provisional" in served(pipeline).details
        with ThreadPoolExecutor(1) as beside:
            improvement = beside.submit(rebuilder.improve)
            fresh = commit(pipeline, ["new"], seed=2)
            assert rebuilder.step(quick=True) is not None
            assert improvement.result()
        rebuilder.step(quick=True)
        pipeline.reader("a").step()
    finally:
        rebuilder.stop()
    assert "provisional" not in served(pipeline).details
    assert served(pipeline).covers == {"tracks": 2}
    assert nearest(pipeline, fresh[0]) == "new"
