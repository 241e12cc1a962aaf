"""The pipeline that users' tests get: the real thing but for its edges."""

import multiprocessing
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from indexrelay.producers import NotServedError
from indexrelay.schemas.errors import SettingsError
from indexrelay.schemas.messages import BuildOutcome, LoadOutcome, RebuildStatus
from indexrelay.schemas.settings import Settings
from indexrelay.testing import (
    FakeClock,
    MakePipeline,
    NothingToCorruptError,
    NotSettledError,
    Pipeline,
)
from tests.testing.kinds import Restless

CACHE = {"kind": "embedding_cache", "from": "tracks"}
MAP = {"kind": "projection", "from": "tracks"}


@pytest.fixture
def pipeline(indexrelay_pipeline: MakePipeline) -> Pipeline:
    return indexrelay_pipeline(
        collections={"tracks": {"dimension": 3, "metric": "l2"}},
        components={"cache": CACHE, "chart": MAP},
    )


def commit(pipeline: Pipeline, *ids: str) -> None:
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(ids, np.arange(3 * len(ids)).reshape(len(ids), 3))


def test_a_batch_is_built_released_and_served(pipeline: Pipeline) -> None:
    reader = pipeline.reader("a")
    assert not reader.ready
    commit(pipeline, "one", "two")
    pipeline.settle()
    assert [result.status for result in pipeline.results] == [RebuildStatus.SUCCESS]
    assert reader.ready
    with reader.acquire() as snapshot:
        assert snapshot.release == 1
        assert list(snapshot["cache"].ids) == ["one", "two"]


def test_nothing_happens_until_the_test_asks_for_it(pipeline: Pipeline) -> None:
    commit(pipeline, "one")
    assert pipeline.results == []
    result = pipeline.rebuild()
    assert result is not None
    assert result.indexes_rebuilt == ("cache", "chart")
    assert pipeline.rebuild() is None
    assert pipeline.results == [result]


def test_no_thread_and_no_process_is_started(pipeline: Pipeline) -> None:
    threads = set(threading.enumerate())
    pipeline.reader("a")
    commit(pipeline, "one")
    pipeline.settle()
    assert pipeline.results[0].status is RebuildStatus.SUCCESS
    assert set(threading.enumerate()) == threads
    assert multiprocessing.active_children() == []


def test_a_reader_that_comes_later_serves_at_once(pipeline: Pipeline) -> None:
    commit(pipeline, "one")
    pipeline.settle()
    assert pipeline.reader("late").ready
    assert pipeline.reader("late") is pipeline.reader("late")


def test_a_build_fails_as_often_as_asked_and_the_last_good_version_serves(
    pipeline: Pipeline,
) -> None:
    reader = pipeline.reader("a")
    commit(pipeline, "one")
    pipeline.settle()
    pipeline.fail_build("cache", error="out of luck", times=1)
    commit(pipeline, "two")
    pipeline.settle()
    failed = pipeline.results[-1]
    assert failed.status is RebuildStatus.PARTIAL_SUCCESS
    assert failed.components["cache"].error == "out of luck"
    with reader.acquire() as snapshot:
        assert list(snapshot["cache"].ids) == ["one"]
        assert list(snapshot["chart"].ids) == ["one", "two"]
    pipeline.advance(3600)
    assert pipeline.results[-1].components["cache"].outcome is BuildOutcome.REBUILT
    with reader.acquire() as snapshot:
        assert list(snapshot["cache"].ids) == ["one", "two"]


def test_a_build_fails_until_it_is_healed(pipeline: Pipeline) -> None:
    pipeline.fail_build("cache")
    for name in ("one", "two"):
        commit(pipeline, name)
        pipeline.settle()
        assert pipeline.results[-1].indexes_failed == ("cache",)
    pipeline.heal_build("cache")
    commit(pipeline, "three")
    pipeline.settle()
    assert pipeline.results[-1].status is RebuildStatus.SUCCESS


def test_corrupt_files_fail_in_the_reader_and_are_built_again(pipeline: Pipeline) -> None:
    reader = pipeline.reader("a")
    commit(pipeline, "one")
    pipeline.settle()
    commit(pipeline, "two")
    pipeline.rebuild()
    pipeline.corrupt("cache")
    reader.step()
    state = reader.state.components
    assert state["cache"].outcome is LoadOutcome.FAILED
    assert state["chart"].outcome is LoadOutcome.APPLIED
    with reader.acquire() as snapshot:
        assert list(snapshot["cache"].ids) == ["one"]
    pipeline.settle()
    with reader.acquire() as snapshot:
        assert list(snapshot["cache"].ids) == ["one", "two"]


def test_only_released_files_can_be_corrupt(pipeline: Pipeline) -> None:
    with pytest.raises(NothingToCorruptError, match="'cache'"):
        pipeline.corrupt("cache")


def test_a_commit_while_redis_is_away_is_found_later(pipeline: Pipeline) -> None:
    reader = pipeline.reader("a")
    with pipeline.without_redis():
        commit(pipeline, "one")
    pipeline.settle()
    assert reader.ready


def test_a_job_that_waits_is_answered_without_any_thread(pipeline: Pipeline) -> None:
    pipeline.reader("a")
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(["one"], [[1, 2, 3]])
    served = pipeline.producer.wait_served(batch.commit, timeout_seconds=5)
    assert (served.readers, served.release) == (("a",), 1)


def test_a_job_that_waits_in_vain_gets_the_error_without_any_waiting(pipeline: Pipeline) -> None:
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(["one"], [[1, 2, 3]])
    with pytest.raises(NotServedError):
        pipeline.producer.wait_served(batch.commit, timeout_seconds=3)
    assert pipeline.clock.monotonic() >= 3


def test_results_are_stamped_by_the_fake_clock(pipeline: Pipeline) -> None:
    pipeline.clock.advance(90)
    commit(pipeline, "one")
    pipeline.settle()
    assert pipeline.results[0].started_at == datetime(2026, 1, 1, 0, 1, 30, tzinfo=UTC)


def test_the_error_of_a_pipeline_that_never_settles_names_what_it_builds(
    indexrelay_pipeline: MakePipeline,
) -> None:
    pipeline = indexrelay_pipeline(
        collections={"tracks": {"dimension": 3, "metric": "l2"}},
        components={"busy": {"kind": "tests.testing.kinds:Restless", "from": "tracks"}},
    )
    Restless.after_build = lambda: commit(pipeline, "again")
    commit(pipeline, "one")
    with pytest.raises(NotSettledError, match="busy"):
        pipeline.settle()


def test_an_applications_settings_keep_everything_but_their_places(
    indexrelay_pipeline: MakePipeline, tmp_path: Path
) -> None:
    settings = Settings.model_validate(
        {
            "namespace": "shop",
            "data_dir": "/nowhere/at/all",
            "redis": {"url": "redis://production.example:6379"},
            "catalog": {"url": "postgresql://production.example/catalog"},
            "artifacts": {"dir": "/nowhere/at/all"},
            "collections": {"tracks": {"dimension": 3, "metric": "l2"}},
            "components": {"cache": CACHE},
        }
    )
    pipeline = indexrelay_pipeline(settings)
    assert pipeline.settings.namespace == "shop"
    assert pipeline.settings.components == settings.components
    assert pipeline.settings.data_dir.is_relative_to(tmp_path)
    assert pipeline.settings.artifacts_dir.is_relative_to(tmp_path)
    assert pipeline.settings.redis_url is None
    commit(pipeline, "one")
    pipeline.settle()
    assert pipeline.results[0].status is RebuildStatus.SUCCESS


def test_two_pipelines_of_one_test_share_nothing(indexrelay_pipeline: MakePipeline) -> None:
    tables = {
        "collections": {"tracks": {"dimension": 3, "metric": "l2"}},
        "components": {"cache": CACHE},
    }
    first, second = indexrelay_pipeline(**tables), indexrelay_pipeline(**tables)
    commit(first, "one")
    first.settle()
    second.settle()
    assert (len(first.results), len(second.results)) == (1, 0)


def test_a_clock_does_not_go_back() -> None:
    clock = FakeClock()
    clock.advance(1.5)
    assert clock.monotonic() == 1.5
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_a_new_track_is_found(indexrelay_pipeline: MakePipeline) -> None:
    """The example in the plugin's docstring, word for word."""
    pipeline = indexrelay_pipeline(
        collections={"tracks": {"dimension": 3}},
        components={"similar": {"kind": "vector_index", "from": "tracks"}},
    )
    reader = pipeline.reader("a")
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(["one"], [[1, 0, 0]])
    pipeline.settle()
    with reader.acquire() as snapshot:
        assert snapshot["similar"].search([1, 0, 0], k=1)[0].id == "one"


def test_mistakes_in_tables_are_reported_as_in_a_settings_file(
    indexrelay_pipeline: MakePipeline,
) -> None:
    with pytest.raises(SettingsError) as refused:
        indexrelay_pipeline(
            collections={"tracks": {"dimension": 3}},
            components={
                "similar": {"kind": "vector_idx", "from": "tracks"},
                "words": {"kind": "text_index", "from": "traks"},
            },
        )
    keys = {mistake.key for mistake in refused.value.mistakes}
    assert keys == {"components.similar.kind", "components.words.from"}
