"""Small batches, the whole way: versions continue each other, and readers cannot tell."""

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from indexrelay.schemas.versions import VersionManifest
from indexrelay.testing import MakePipeline, Pipeline

DIMENSION = 8
COMPONENTS = {
    "texts": {"kind": "text_index", "from": "tracks"},
    "cache": {"kind": "embedding_cache", "from": "tracks"},
    "chart": {"kind": "projection", "from": "tracks"},
}
STAYS = {
    "texts": set(),
    "cache": {"matrix.npy", "ids.table"},
    "chart": {
        "ids.table",
        "fingerprints.npy",
        "landmarks.npy",
        "linear.npy",
    },
}
"""The files that a version names again when it follows a small batch."""


@pytest.fixture
def pipeline(indexrelay_pipeline: MakePipeline) -> Pipeline:
    return indexrelay_pipeline(
        collections={"tracks": {"dimension": DIMENSION, "metric": "l2"}}, components=COMPONENTS
    )


def vectors(count: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, DIMENSION)).astype(np.float32)


def commit(pipeline: Pipeline, ids: list[str], *, seed: int, deletes: tuple[str, ...] = ()) -> None:
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(ids, vectors(len(ids), seed), texts=[f"track {one} of {seed}" for one in ids])
        batch.delete(deletes)
    pipeline.settle()


def manifests(pipeline: Pipeline) -> dict[str, VersionManifest]:
    release = pipeline.store.newest_release()
    assert release is not None
    return {
        name: pipeline.store.version(name, version) for name, version in release.components.items()
    }


def modes(pipeline: Pipeline) -> set[str]:
    return {manifest.details["build"]["mode"] for manifest in manifests(pipeline).values()}


def test_a_small_batch_continues_every_version_and_names_what_stayed(pipeline: Pipeline) -> None:
    commit(pipeline, [f"t{row:03d}" for row in range(200)], seed=1)
    before = manifests(pipeline)
    assert modes(pipeline) == {"full"}
    commit(pipeline, ["t005", "t100b"], seed=2, deletes=("t007",))
    after = manifests(pipeline)
    assert modes(pipeline) == {"incremental"}
    for name, manifest in after.items():
        shared = {
            file for file, blob in manifest.files.items() if before[name].files.get(file) == blob
        }
        assert shared == STAYS[name]
        digests = {manifest.files[file].digest for file in shared}
        # Their bytes were not read again either: the check is that of the version before.
        read = {check for check in manifest.checks if check.blob in digests}
        assert read <= set(before[name].checks)


def test_readers_serve_the_same_after_small_batches_as_after_a_full_build(
    pipeline: Pipeline,
) -> None:
    reader = pipeline.reader("a")
    commit(pipeline, [f"t{row:03d}" for row in range(200)], seed=1)
    for step in range(4):
        commit(
            pipeline, [f"t{step:03d}", f"t1{step}0-new"], seed=10 + step, deletes=(f"t05{step}",)
        )
    assert modes(pipeline) == {"incremental"}
    with ExitStack() as stack:
        continued = stack.enter_context(reader.acquire())
        pipeline.producer.request_rebuild(["texts", "cache"], full=True)
        pipeline.settle()
        whole = stack.enter_context(reader.acquire())
        assert whole.release > continued.release
        assert whole.manifest("cache").details["build"]["mode"] == "full"
        assert list(continued["cache"].ids) == list(whole["cache"].ids)
        np.testing.assert_array_equal(continued["cache"].to_numpy(), whole["cache"].to_numpy())
        for query in ("track", "t003", "of 11", "t130 new"):
            found = continued["texts"].search(query, k=30)
            assert found
            assert found == whole["texts"].search(query, k=30)
        assert set(continued["chart"].ids) == set(continued["cache"].ids)
