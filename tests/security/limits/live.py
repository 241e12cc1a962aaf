"""What live changes may take of Redis, of a reader and of the catalog."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from indexrelay.reloaders.live import LiveFollower
from indexrelay.schemas.messages import FIELD, MAX_EVENT_BYTES
from indexrelay.schemas.settings import Settings
from indexrelay.storage.changes import read_changes
from indexrelay.storage.entries import Changes, Entries
from indexrelay.streams.publisher import publish_changes
from indexrelay.testing.pipeline import Pipeline
from tests.reloaders import test_live
from tests.security.limits.table import Row, exercises


@exercises("bytes of changes in one message")
def _message(row: Row, _request: pytest.FixtureRequest) -> None:
    def read(payload: str) -> Changes | None:
        vectors = np.zeros((1, 1), dtype=np.float32)
        entries = Entries(ids=["a"], vectors=vectors, texts=[None], payloads=[payload])
        found = iter([Changes(upserts=entries, deletes=[])])
        snapshot: Any = SimpleNamespace(dimension=1, changes=lambda *_: found)
        return read_changes(snapshot, after=0)

    beside = len("a") + 4 + 4 + 4 * 4 // 3  # the id, what surrounds both texts, a number as base64
    assert read("x" * (row.number - beside)) is not None
    assert read("x" * (row.number - beside + 1)) is None


@exercises("bytes of a stream of changes")
def _stream(row: Row, request: pytest.FixtureRequest) -> None:
    pipeline = _pipeline(request)
    for _ in range(row.number // MAX_EVENT_BYTES + 3):
        publish_changes(pipeline.connection, "changes", b"x" * MAX_EVENT_BYTES)
    left: Any = pipeline.connection.commands.xrange("changes")
    assert sum(len(fields[FIELD]) for _, fields in left) == row.number


@exercises("changed entries that a reader lays over a release, of one collection")
def _entries(row: Row, request: pytest.FixtureRequest) -> None:
    assert row.setting == "live.max_entries"  # three of them stand for the limit
    test_live.test_past_its_limit_a_reader_asks_for_a_rebuild_and_stays_where_it_is(
        lambda settings: _pipeline(request, settings)
    )


@exercises("looks into the catalog that messages without a valid MAC can cause, in a second")
def _looks(row: Row, request: pytest.FixtureRequest) -> None:
    looks = 0
    look_into = LiveFollower._look_into

    def counted(self: LiveFollower, catalog: Any) -> bool:
        nonlocal looks
        looks += 1
        return look_into(self, catalog)

    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setattr(LiveFollower, "_look_into", counted)
    pipeline = _pipeline(request)
    test_live.released(pipeline)
    reader = pipeline.reader("web")
    reader.step()
    pipeline.clock.advance(1)
    reader.step()
    looks = 0
    for _ in range(4 * row.number):
        pipeline.connection.commands.xadd(test_live.STREAM, {FIELD: b"made up"})
        pipeline.clock.advance(1 / (4 * row.number))
        reader.step()
    assert row.number / 2 <= looks <= row.number


def _pipeline(request: pytest.FixtureRequest, settings: Settings | None = None) -> Pipeline:
    folder: Path = request.getfixturevalue("tmp_path")
    pipeline = Pipeline(settings or test_live.make_settings(), folder)
    request.addfinalizer(pipeline.close)
    return pipeline
