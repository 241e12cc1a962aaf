"""The artifacts' network file system fails (EIO, ESTALE): everybody waits, says so, and goes on."""

import errno
import os
from collections.abc import Callable

import pytest

from indexrelay.health.status import Code
from indexrelay.rebuilder import InlineRunner, Rebuilder
from indexrelay.reloaders import Reloader
from indexrelay.schemas.messages import LoadOutcome
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.testing.pipeline import Pipeline
from tests.behaviour.running_roles import Lines, lines_of_a_role, run_loop
from tests.fixtures.failing_mounts import failing_mount

MakePipeline = Callable[..., Pipeline]
ERRORS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
TABLES = {
    "collections": {"tracks": {"dimension": 2}},
    "components": {
        "cache": {"kind": "embedding_cache", "from": "tracks"},
        "words": {"kind": "text_index", "from": "tracks"},
    },
}


def commit(pipeline: Pipeline, name: str) -> None:
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert([name], [[1, 2]], texts=[f"the song {name}"])


def served(reader: Reloader) -> set[str]:
    with reader.acquire() as snapshot:
        return set(snapshot["cache"].ids) if "cache" in snapshot else set()


def says(lines: Lines, number: int, *events: str) -> None:
    """Each of ``events`` was written, with what the operating system said, and not often."""
    told = [said for said in lines.said if os.strerror(number) in said]
    for event in events:
        assert any(f"'event': '{event}'" in said for said in told), (event, lines.said)
    assert lines.events.total() < 30, lines.events


@pytest.fixture
def pipeline(indexrelay_pipeline: MakePipeline) -> Pipeline:
    pipeline = indexrelay_pipeline(**TABLES)
    commit(pipeline, "a")
    pipeline.settle()
    return pipeline


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_a_mount_that_fails_keeps_what_is_served_and_is_caught_up_with(
    pipeline: Pipeline, number: int
) -> None:
    reader = pipeline.reader("web")
    with (
        failing_mount(pipeline.settings.artifacts_dir, number),
        lines_of_a_role(pipeline.clock) as lines,
    ):
        commit(pipeline, "b")
        run_loop(pipeline.rebuilder, pipeline.clock, 60, reader.step)
        assert served(reader) == {"a"}
        [problem] = reader.problems
        assert (problem.code, os.strerror(number) in problem.what) == (
            Code.ARTIFACTS_UNREADABLE,
            True,
        )
    says(lines, number, "store.unreadable", "rebuilder.interrupted")
    assert all(each.transient for each in pipeline.catalog.attempts.all().values())
    run_loop(pipeline.rebuilder, pipeline.clock, 20, reader.step)
    assert served(reader) == {"a", "b"}
    assert reader.problems == ()


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_who_starts_while_a_mount_fails_waits_for_it_and_says_so(
    pipeline: Pipeline, number: int
) -> None:
    settings, clock = pipeline.settings, pipeline.clock
    commit(pipeline, "b")
    with failing_mount(settings.artifacts_dir, number), lines_of_a_role(clock) as lines:
        store = ArtifactStore.of(settings, clock=clock, may_be_away=True)
        reader = Reloader(
            settings,
            reader_id="late",
            store=store,
            connection=pipeline.connection,
            clock=clock,
        )
        rebuilder = Rebuilder(
            settings,
            catalog=pipeline.catalog,
            store=store,
            connection=pipeline.connection,
            runner=InlineRunner(catalog=pipeline.catalog, store=store, clock=clock),
            clock=clock,
        )
        run_loop(rebuilder, clock, 60, reader.step)
        assert (served(reader), reader.ready) == (set(), False)
    says(lines, number, "store.unreadable", "rebuilder.interrupted")
    run_loop(rebuilder, clock, 20, reader.step)
    assert (served(reader), reader.ready) == ({"a", "b"}, True)
    rebuilder.stop()
    reader.stop()


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("folder", ["blobs", "versions", "releases", "work"])
def test_a_part_of_it_that_fails_is_tried_again_and_is_nobodys_own_failure(
    pipeline: Pipeline, folder: str, number: int
) -> None:
    reader = pipeline.reader("web")
    with failing_mount(pipeline.settings.artifacts_dir / folder, number):
        commit(pipeline, "b")
        run_loop(pipeline.rebuilder, pipeline.clock, 20, reader.step)
        assert served(reader) == {"a"}
    assert all(each.transient for each in pipeline.catalog.attempts.all().values())
    run_loop(pipeline.rebuilder, pipeline.clock, 60, reader.step)
    assert served(reader) == {"a", "b"}


@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_a_load_that_meets_it_says_why_and_is_tried_again(pipeline: Pipeline, number: int) -> None:
    reader = pipeline.reader("web")
    commit(pipeline, "b")
    pipeline.rebuild()
    with failing_mount(pipeline.settings.artifacts_dir / "blobs", number):
        reader.step()
        state = reader.state.components["cache"]
        assert (state.outcome, served(reader)) == (LoadOutcome.FAILED, {"a"})
        assert os.strerror(number) in (state.error or "")
    pipeline.clock.advance(70)
    reader.step()
    assert served(reader) == {"a", "b"}
