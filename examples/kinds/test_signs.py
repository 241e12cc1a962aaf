"""Tests of `signs`: a whole pipeline in one process, from the plugin that comes with indexrelay."""

import numpy as np

from indexrelay.testing import MakePipeline

DIMENSION = 16


def test_a_small_batch_is_built_incrementally_and_found(indexrelay_pipeline: MakePipeline) -> None:
    pipeline = indexrelay_pipeline(
        collections={"tracks": {"dimension": DIMENSION}},
        components={"alike": {"kind": "signs:SignIndex", "from": "tracks"}},
    )
    vectors = np.random.default_rng(0).standard_normal((100, DIMENSION))
    reader = pipeline.reader("web-1")
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert([f"track {row}" for row in range(100)], vectors)
    pipeline.settle()
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(["new"], [vectors[7]], payloads=[{"title": "New"}])
        batch.delete(["track 7"])
    pipeline.settle()
    assert pipeline.results[-1].components["alike"].mode == "incremental"
    with reader.acquire() as snapshot:
        best = snapshot["alike"].search(vectors[7], k=1)[0]
        assert (best.id, best.score, best.payload) == ("new", 0.0, {"title": "New"})
        assert len(snapshot["alike"]) == 100
