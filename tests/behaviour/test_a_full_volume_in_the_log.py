"""A volume that stays full takes a few lines, whoever meets it and however often.

Everything lies on one small volume: catalog, artifacts, work folders. The real loop of a rebuilder
runs over minutes of injected time, a reader and a job beside it, and all that is logged goes
through the filter of a role's handler.
"""

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.rebuilder.runners import SerialExecutor
from indexrelay.schemas.loggers import FIELDS
from indexrelay.schemas.repeats import RepeatLimit
from indexrelay.schemas.settings_file import check_settings
from indexrelay.testing.clock import FakeClock
from indexrelay.testing.pipeline import Pipeline
from tests.faults.volumes import Volume, may_mount

VOLUME_BYTES = 32 << 20
SECONDS = 60.0
TURN_SECONDS = 1.0
COMMIT_SECONDS = 5.0
RECOVERY_SECONDS = 20.0
TABLES = {
    "collections": {"tracks": {"dimension": 8}},
    "components": {
        f"{kind}_{number}": {"kind": kind, "from": "tracks"}
        for kind in ("embedding_cache", "text_index")
        for number in range(3)
    },
}


MET = {"artifacts": 100, ".": 20}
"""What is logged at the least: six components fail with each batch, or where none can be committed,
with each look."""


class Lines(logging.Handler):
    """What a role would write, by event."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(logging.INFO)
        self.shown: Counter[str] = Counter()
        self.records = 0
        self.addFilter(self._count)
        self.addFilter(RepeatLimit(clock))

    def _count(self, _record: logging.LogRecord) -> bool:
        self.records += 1
        return True

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, FIELDS, None)
        self.shown[record.getMessage() if fields is None else str(fields["event"])] += 1


class Until(threading.Event):
    """Set once so much injected time has passed; a wait lets it pass."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        super().__init__()
        self._clock = clock
        self._end = clock.monotonic() + seconds

    def is_set(self) -> bool:
        return super().is_set() or self._clock.monotonic() >= self._end

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.advance(timeout or 0.0)
        return self.is_set()


class Day:
    """A job, a rebuilder's loop and a reader, for as long as it is told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = check_settings(TABLES, origin="test")
        self.pipeline = Pipeline(settings, folder)
        self._monkeypatch = monkeypatch
        self._batches = 0
        self._commit_at = 0.0
        self.commits = True
        monkeypatch.setattr(self.pipeline.rebuilder, "_passes", SerialExecutor())
        monkeypatch.setattr(self.pipeline.rebuilder, "_patience", self._turn)

    def last(self, seconds: float) -> None:
        until = Until(self.pipeline.clock, seconds)
        self._monkeypatch.setattr(self.pipeline.rebuilder, "_stopping", until)
        self.pipeline.rebuilder._loop()

    def _turn(self) -> float:
        """While the rebuilder waits for events: a second, and what others do in it."""
        self.pipeline.clock.advance(TURN_SECONDS)
        self.pipeline.reader("web").step()
        if self.commits and self.pipeline.clock.monotonic() >= self._commit_at:
            self._commit_at = self.pipeline.clock.monotonic() + COMMIT_SECONDS
            self.commit()
        return 0.0

    def commit(self) -> None:
        self._batches += 1
        rows = [[float(self._batches + row)] * 8 for row in range(40)]
        ids = [f"{self._batches}-{row}" for row in range(40)]
        # Where the catalog has no room either, the job is told, and its next run commits again.
        with suppress(SQLAlchemyError), self.pipeline.producer.batch("tracks") as batch:
            batch.upsert(ids, rows, texts=["a song"] * 40)


@pytest.mark.parametrize("place", [".", "artifacts"])
def test_a_full_volume_takes_less_than_a_line_a_second_and_is_caught_up_with_once_there_is_room(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not may_mount():
        assert not os.environ.get("CI"), "in CI this test is to run, as root"
        pytest.skip("mounting a small volume needs root")
    with Volume(tmp_path / "data" / place, VOLUME_BYTES) as volume:
        day = Day(tmp_path / "data", monkeypatch)
        day.last(10)
        with lines_of_a_role(day.pipeline.clock) as lines:
            day.commit()  # so that there is something to build, too
            volume.fill()
            day.last(SECONDS)
            volume.free()
        assert lines.records > MET[place]
        assert sum(lines.shown.values()) < SECONDS, lines.shown
        day.commits = False
        day.commit()  # without it they are tried again after their cool-down, minutes later
        day.last(RECOVERY_SECONDS)
        covered = day.pipeline.catalog.collections.get("tracks").generation
        with day.pipeline.reader("web").acquire() as snapshot:
            assert {snapshot.manifest(name).covers["tracks"] for name in snapshot} == {covered}
        day.pipeline.close()


@contextmanager
def lines_of_a_role(clock: FakeClock) -> Iterator[Lines]:
    root, lines = logging.getLogger(), Lines(clock)
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(lines)
    try:
        yield lines
    finally:
        root.removeHandler(lines)
        root.setLevel(level)
