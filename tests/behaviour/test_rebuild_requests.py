"""What a request may want beyond a build: to ignore shrinking, and to build from scratch."""

import numpy as np
import pytest

from indexrelay.schemas.messages import BuildMode, BuildOutcome, ComponentResult, RebuildStatus
from indexrelay.schemas.versions import VersionManifest
from indexrelay.testing import MakePipeline, Pipeline

IDS = [f"t{row:03d}" for row in range(200)]


@pytest.fixture
def pipeline(indexrelay_pipeline: MakePipeline) -> Pipeline:
    made = indexrelay_pipeline(
        collections={"tracks": {"dimension": 4}},
        components={
            "cache": {"kind": "embedding_cache", "from": "tracks", "max_shrink": 0.0},
        },
    )
    with made.producer.batch("tracks") as batch:
        batch.upsert(IDS, np.random.default_rng(0).standard_normal((len(IDS), 4)))
    made.settle()
    return made


def asked(pipeline: Pipeline, *, force: bool, full: bool) -> ComponentResult:
    """What came of asking for the one component."""
    request = pipeline.producer.request_rebuild(["cache"], force=force, full=full)
    result = pipeline.rebuild()
    assert result is not None
    assert result.request_ids == (request,)
    return result.components["cache"]


def released(pipeline: Pipeline) -> VersionManifest:
    release = pipeline.store.newest_release()
    assert release is not None
    return pipeline.store.version("cache", release.components["cache"])


@pytest.mark.parametrize("shrinks", [False, True])
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_force_ignores_shrinking_alone_and_full_builds_from_scratch_alone(
    pipeline: Pipeline, force: bool, full: bool, shrinks: bool
) -> None:
    before = released(pipeline)
    if shrinks:
        with pipeline.producer.batch("tracks") as batch:
            batch.delete(IDS[:5])
    result = asked(pipeline, force=force, full=full)
    if shrinks and not force:
        assert result.outcome is BuildOutcome.FAILED
        assert "indexrelay rebuild cache --force" in str(result.error)
        assert released(pipeline) == before
        return
    assert result.outcome is BuildOutcome.REBUILT
    assert result.mode is (BuildMode.FULL if full else BuildMode.INCREMENTAL)
    after = released(pipeline)
    assert after.details["build"]["mode"] == ("full" if full else "incremental")
    assert not full or after.details["build"]["reason"] == "a full build was asked for"
    # From scratch nothing is trusted: what stayed byte for byte is read back again.
    stayed = {blob.digest for blob in after.files.values()} & {
        blob.digest for blob in before.files.values()
    }
    again = {each for each in after.checks if each.blob in stayed} - set(before.checks)
    assert bool(again) == bool(stayed and full)


@pytest.mark.parametrize("wish", ["force", "full"])
def test_a_request_without_names_is_about_what_is_due(pipeline: Pipeline, wish: str) -> None:
    nothing = pipeline.producer.request_rebuild(force=wish == "force", full=wish == "full")
    result = pipeline.rebuild()
    assert result is None or result.components == {}
    assert nothing not in {row.event_id for row in pipeline.catalog.inbox.open()}
    with pipeline.producer.batch("tracks") as batch:
        batch.delete(IDS[:5])
    pipeline.producer.request_rebuild(force=wish == "force", full=wish == "full")
    result = pipeline.rebuild()
    assert result is not None
    built = result.components["cache"]
    if wish == "force":
        assert (result.status, built.mode) == (RebuildStatus.SUCCESS, BuildMode.INCREMENTAL)
    else:
        assert built.outcome is BuildOutcome.FAILED  # built from scratch, and shrunk all the same
