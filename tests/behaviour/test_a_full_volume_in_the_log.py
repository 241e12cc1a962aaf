"""A volume that stays full takes a few lines, whoever meets it and however often.

The artifacts lie on one small volume, or everything does, the catalog, too. A rebuilder's own loop
runs over injected time, a reader and a job beside it, and all that is logged goes through the
filter of a role's handler.
"""

import os
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.schemas.settings_file import check_settings
from indexrelay.testing.pipeline import Pipeline
from tests.behaviour.running_roles import lines_of_a_role, run_loop
from tests.fixtures.volumes import Volume, may_mount

VOLUME_BYTES = 32 << 20
SECONDS = 60.0
COMMIT_SECONDS = 5.0
TABLES = {
    "collections": {"tracks": {"dimension": 8}},
    "components": {
        f"{kind}_{number}": {"kind": kind, "from": "tracks"}
        for kind in ("embedding_cache", "text_index")
        for number in range(3)
    },
}
LOGGED = {"artifacts": 100, ".": 20}
"""What is logged at the least: six components fail with each batch, or where none can be committed,
with each look."""


class Job:
    """Commits a batch every few seconds."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._batches = 0
        self._next = 0.0

    def turn(self) -> None:
        now = self._pipeline.clock.monotonic()
        if now >= self._next:
            self._next = now + COMMIT_SECONDS
            self.commit()

    def commit(self) -> None:
        self._batches += 1
        rows = [[float(self._batches + row)] * 8 for row in range(40)]
        ids = [f"{self._batches}-{row}" for row in range(40)]
        # Where the catalog has no room either, the job is told, and its next run commits again.
        with suppress(SQLAlchemyError), self._pipeline.producer.batch("tracks") as batch:
            batch.upsert(ids, rows, texts=["a song"] * 40)


@pytest.mark.parametrize("place", LOGGED)
def test_a_full_volume_takes_less_than_a_line_a_second_and_is_caught_up_with_once_there_is_room(
    place: str, tmp_path: Path
) -> None:
    if not may_mount():
        assert not os.environ.get("CI"), "in CI this test is to run, as root"
        pytest.skip("mounting a small volume needs root")
    with Volume(tmp_path / "data" / place, VOLUME_BYTES) as volume:
        pipeline = Pipeline(check_settings(TABLES, origin="test"), tmp_path / "data")
        job, reader = Job(pipeline), pipeline.reader("web")

        def last(seconds: float, *, batches: bool = True) -> None:
            def beside() -> None:
                reader.step()
                if batches:
                    job.turn()

            run_loop(pipeline.rebuilder, pipeline.clock, seconds, beside)

        last(10)
        with lines_of_a_role(pipeline.clock) as lines:
            job.commit()  # so that there is something to build, too
            volume.fill()
            last(SECONDS)
            volume.free()
        assert lines.logged > LOGGED[place]
        assert lines.events.total() < SECONDS, lines.events
        job.commit()  # without it they are tried again after their cool-down, minutes later
        last(20, batches=False)
        covered = pipeline.catalog.collections.get("tracks").generation
        with reader.acquire() as snapshot:
            assert {snapshot.manifest(name).covers["tracks"] for name in snapshot} == {covered}
        pipeline.close()
