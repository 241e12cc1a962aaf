"""What was: written down by looks, kept over restarts, thinned, and bounded."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic_core import to_json

from indexrelay.admin import history
from indexrelay.admin.history import FILE_NAME, History
from indexrelay.health.judge import judge
from indexrelay.operations.observer import Observation, RebuildCounts
from indexrelay.schemas.messages import RebuildResult, RebuildStatus
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.testing import FakeClock, MakePipeline, Pipeline
from tests.admin.conftest import MakeService, operator_of
from tests.admin.desk import desk_of
from tests.fixtures.logs import capture_logs
from tests.health.healthy_facts import healthy
from tests.storage.artifacts.samples import make_release, make_version

START = datetime(2026, 11, 28, 12, tzinfo=UTC)
EARLIER = START - timedelta(days=4000)


def result(number: int, *, at: datetime = START, **changes: Any) -> RebuildResult:
    given = {
        "status": RebuildStatus.SUCCESS,
        "message": f"rebuild {number}",
        "indexes_rebuilt": ("map",),
        "release": number + 1,
        "started_at": at - timedelta(seconds=number % 7),
        "finished_at": at,
    }
    return RebuildResult.model_construct(**{**given, **changes})


class Kept:
    """A history under an injected clock, and the looks that it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FakeClock(START)
        self.store = ArtifactStore(folder / "artifacts", by="ada@desk", clock=self.clock)
        self.history = self.opened()

    def opened(self) -> History:
        return History(self.folder / FILE_NAME, store=self.store, clock=self.clock)

    def look(self, *, after: float = 0.0, **changes: Any) -> None:
        self.clock.advance(after)
        facts = replace(healthy(), now=self.clock.now(), release=self.store.newest_release())
        given = {"freshness": {"map": 1.5}, "rebuilds": RebuildCounts(success_ratio=0.75)}
        self.history.add(Observation(facts=facts, verdict=judge(facts), **{**given, **changes}))

    def view(self, since: datetime = EARLIER, limit: int = 10_000) -> dict[str, Any]:
        return self.history.view(since, limit=limit)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_what_looks_show_outlives_the_process_and_is_written_once(kept: Kept) -> None:
    kept.look(earlier=(result(0, at=START - timedelta(hours=3)),))
    kept.look(after=15, results=(result(1), result(2, status=RebuildStatus.FAILURE)))
    kept.look(after=15, results=(result(1),))
    kept.history.close()
    kept.history.close()
    again = kept.opened()
    found = again.view(EARLIER, limit=100)
    assert [each["message"] for each in found["rebuilds"][-1:]] == ["rebuild 0"]
    assert found["totals"] == {
        "count": 3,
        "succeeded": 2,
        "partly": 0,
        "failed": 1,
        "median_seconds": 1.0,
    }
    assert [each["freshness_seconds"] for each in found["samples"]] == [1.5, 1.5, 1.5]
    assert found["samples"][0]["success_ratio"] == 0.75
    assert found["oldest"] == START - timedelta(hours=3)
    assert len(kept.view(START)["rebuilds"]) == 2, "only what was since then"
    again.close()


def test_a_sample_keeps_the_worst_freshness_of_its_time(kept: Kept) -> None:
    for seconds in (1.0, 9.0, 2.0):
        kept.look(after=3, freshness={"map": seconds, "other": 0.0})
    kept.look(after=15, freshness={})
    kept.look(after=15)
    first, second = kept.view()["samples"]
    assert (first["freshness_seconds"], second["freshness_seconds"]) == (9.0, None)


def test_each_release_is_kept_with_what_it_changed_also_when_the_artifacts_forget_it(
    kept: Kept,
) -> None:
    maps = [make_version(kept.store, "map", b"%d" % number) for number in range(2)]
    make_release(kept.store, map=maps[0])
    kept.look()
    make_release(kept.store, map=maps[1])
    kept.store.hold("map", reason="<b>good</b>\x1b[1m")
    kept.look(after=1)
    held, second, first = kept.view()["releases"]
    assert (first["added"], second["changed"], held["holds"]) == (["map"], ["map"], ["map"])
    assert held["reason"] == "held map: <b>good</b>\\x1b[1m"
    for path in kept.store.root.rglob("00000001.json"):
        path.unlink()
    kept.history.close()
    kept.history = kept.opened()
    kept.look(after=1)
    assert [each["number"] for each in kept.view()["releases"]] == [3, 2, 1]


def test_what_grows_old_is_thinned_to_hours_and_days_and_its_worst_stays(kept: Kept) -> None:
    for _ in range(40):  # ten hours, at which nothing is old yet
        kept.look(after=900, freshness={"map": 1.0})
    kept.look(after=15, freshness={"map": 99.0})
    assert len(kept.view(START)["samples"]) == 40
    kept.look(after=2 * 86400)
    kept.look(after=15)
    hours = [each for each in kept.view()["samples"] if each["seconds"] == 3600]
    assert len(hours) == 11
    assert max(each["freshness_seconds"] for each in hours) == 99.0
    kept.look(after=100 * 86400)
    kept.look(after=900)
    days = [each for each in kept.view()["samples"] if each["seconds"] == 86400]
    assert [each["freshness_seconds"] for each in days] == [99.0, 1.5]


def test_ten_thousand_rebuilds_are_told_at_once_and_no_more_are_kept_than_so_many(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = tuple(result(number, at=START - timedelta(seconds=number)) for number in range(10_000))
    kept.look(earlier=many)
    found = kept.view()
    assert (len(found["rebuilds"]), found["totals"]["count"]) == (10_000, 10_000)
    assert found["rebuilds"][0]["message"] == "rebuild 0", "the newest first"
    assert len(kept.view(limit=5)["rebuilds"]) == 5
    monkeypatch.setattr(history, "MAX_REBUILDS", 500)
    kept.look(after=900)
    left = kept.view()["rebuilds"]
    assert [left[0]["message"], left[-1]["message"], len(left)] == ["rebuild 0", "rebuild 499", 500]


def test_what_somebody_wrote_into_redis_is_cut_and_ends_no_look(kept: Kept) -> None:
    long = "<script>\x1b[31m" + "\x00" * 100_000
    kept.look(
        results=(
            result(
                1,
                at=datetime.max.replace(tzinfo=UTC),
                started_at=datetime.min.replace(tzinfo=UTC),
                release=10**30,
                message=long,
                indexes_rebuilt=tuple(f"c{number}" for number in range(50_000)),
                request_ids=(long,) * 1000,
            ),
            result(2, at=datetime(1, 1, 2, tzinfo=UTC), started_at=START),
        )
    )
    worst, early = kept.view(datetime.min.replace(tzinfo=UTC))["rebuilds"]
    assert (worst["at"], worst["release"], len(worst["components"])) == (START, None, 100)
    assert worst["message"].startswith("<script>\\x1b[31m\\x00")
    assert len(worst["message"]) <= 1000
    assert sum(map(len, worst["request_ids"])) <= 10 * 200
    assert early["seconds"] == 0.0
    assert len(to_json(kept.view())) < 10_000


def test_what_cannot_be_written_at_all_is_dropped_and_later_looks_are_written(kept: Kept) -> None:
    with capture_logs() as logs:
        kept.look(results=(result(1, message=None), result(2)))
        kept.look(after=15, results=(result(3),))
    assert [each["event"] for each in logs] == ["history.not_written"]
    assert [each["message"] for each in kept.view()["rebuilds"]] == ["rebuild 3"]


def break_by_text(path: Path) -> None:
    path.write_text("this is no database" * 1000)


def break_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("break_", [break_by_text, break_by_folder])
def test_a_file_that_cannot_be_used_is_a_warning_and_nothing_is_lost_of_later_looks(
    kept: Kept, break_: Callable[[Path], None]
) -> None:
    kept.look(results=(result(1),))
    kept.history.close()
    break_(path := kept.folder / FILE_NAME)
    kept.history = kept.opened()
    with capture_logs() as logs:
        kept.look(after=20, results=(result(2),))
        kept.look(after=20)
    assert [each["event"] for each in logs].count("history.not_written") == 1
    if path.is_dir():
        path.rmdir()
    kept.look(after=20)
    assert [each["message"] for each in kept.view()["rebuilds"]] == ["rebuild 2"]
    kept.history.close()


def test_a_file_of_a_later_version_is_left_as_it_is(kept: Kept) -> None:
    with sqlite3.connect(kept.folder / FILE_NAME) as later:
        later.execute("PRAGMA user_version = 9")
        later.execute("CREATE TABLE theirs (a)")
    before = (kept.folder / FILE_NAME).read_bytes()
    with capture_logs() as logs:
        kept.look(results=(result(1),))
    assert "written by a later version" in logs[0]["error"]
    assert (kept.folder / FILE_NAME).read_bytes()[:100] == before[:100]


def test_the_api_tells_what_a_pipeline_did(indexrelay_pipeline: MakePipeline) -> None:
    pipeline = indexrelay_pipeline(
        collections={"tracks": {"dimension": 3}},
        components={"similar": {"kind": "vector_index", "from": "tracks"}},
    )
    pipeline.reader("web")
    with desk_of(pipeline) as desk:
        desk.look()
        with pipeline.producer.batch("tracks") as batch:
            batch.upsert(["a", "b"], np.eye(3)[:2])
        pipeline.settle()
        for _ in range(3):
            pipeline.clock.advance(15)
            desk.look()
        found = desk.get("history")
        (rebuild,) = found["rebuilds"]
        assert (rebuild["status"], rebuild["trigger"]) == ("SUCCESS", "batch")
        assert (rebuild["components"], rebuild["release"]) == (["similar"], 1)
        last = found["samples"][-1]
        assert (last["readers"], last["converged"], last["success_ratio"]) == (1, 1, 1.0)
        assert last["p50_ms"] is not None
        assert [each["added"] for each in found["releases"]] == [["similar"]]
        desk.get("history", status=422, since="yesterday")
        assert desk.get("history", since="0001-01-01T00:00:00+14:00")["rebuilds"] == [rebuild]
        assert desk.get("history", since="2200-01-01T00:00:00Z")["rebuilds"] == []


def test_the_service_writes_history_down_and_ends_it_when_it_stops(
    make_service: MakeService, pipeline: Pipeline
) -> None:
    service = make_service()
    service.start()
    with operator_of(service) as client:
        while client.get("state").status_code == 503:  # until the first look
            pass
    service.stop()
    found = History(
        pipeline.settings.data_dir / FILE_NAME, store=pipeline.store, clock=pipeline.clock
    )
    assert len(found.view(EARLIER, limit=1)["samples"]) == 1
    found.close()
