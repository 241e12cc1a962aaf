"""Changes become a release by the policy of their collection, and none is lost before."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.schemas.settings import Settings
from indexrelay.testing import FakeClock
from indexrelay.testing.pipeline import Pipeline

INTERVAL = 300
Open = Callable[..., Pipeline]


@pytest.fixture
def open_pipeline(tmp_path: Path) -> Iterator[Open]:
    """Puts a pipeline together; called again with the clock, the same one after a restart."""
    opened: list[Pipeline] = []

    def open_one(persistence: str, clock: FakeClock | None = None, **keys: Any) -> Pipeline:
        table = {"dimension": 2, "metric": "l2", "persistence": persistence, **keys}
        settings = {
            "live": {"max_entries": 20},
            "collections": {"tracks": table},
            "components": {"rows": {"kind": "embedding_cache", "from": "tracks"}},
        }
        for each in opened:
            each.close()
        opened.append(Pipeline(Settings.model_validate(settings), tmp_path, clock=clock))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def write(pipeline: Pipeline, *numbers: int) -> None:
    """Entries whose vectors are their numbers."""
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert([f"{each:03}" for each in numbers], [[each, 1] for each in numbers])


def released(pipeline: Pipeline) -> list[str]:
    """The ids that a reader which looks now serves."""
    reader = pipeline.reader("reader")
    reader.step()
    with reader.acquire() as snapshot:
        ids = list(snapshot["rows"].ids)
        assert [snapshot["rows"].get(each)[0] for each in ids] == [int(each) for each in ids]
    return ids


def test_periodic_changes_wait_for_the_interval_and_a_restart_changes_nothing(
    open_pipeline: Open,
) -> None:
    pipeline = open_pipeline("periodic")
    write(pipeline, 1)
    pipeline.settle()
    assert released(pipeline) == ["001"]  # the first version is built at once
    write(pipeline, 2)
    pipeline.advance(INTERVAL - 1)
    assert released(pipeline) == ["001"]
    pipeline = open_pipeline("periodic", pipeline.clock)
    write(pipeline, 3)
    pipeline.settle()
    assert released(pipeline) == ["001"]
    pipeline.advance(1)
    assert released(pipeline) == ["001", "002", "003"]
    write(pipeline, 4)
    pipeline.settle()
    assert released(pipeline) == ["001", "002", "003"]


def test_manual_changes_wait_until_somebody_asks_by_name_or_for_all(open_pipeline: Open) -> None:
    pipeline = open_pipeline("manual")
    write(pipeline, 1)
    pipeline.settle()
    for number, names in ((2, ()), (3, ("rows",))):
        write(pipeline, number)
        pipeline.advance(10 * INTERVAL)
        assert len(released(pipeline)) == number - 1
        pipeline.producer.request_rebuild(names)
        pipeline.settle()
        assert len(released(pipeline)) == number


def test_a_request_whose_build_fails_is_still_carried_out_after_a_restart(
    open_pipeline: Open,
) -> None:
    pipeline = open_pipeline("manual")
    write(pipeline, 1)
    pipeline.settle()
    write(pipeline, 2)
    pipeline.fail_build("rows", times=1)
    pipeline.producer.request_rebuild()
    pipeline.settle()
    pipeline = open_pipeline("manual", pipeline.clock)
    assert released(pipeline) == ["001"]
    pipeline.advance(60)
    assert released(pipeline) == ["001", "002"]


def test_of_a_live_collection_many_changes_become_a_release_by_themselves(
    open_pipeline: Open,
) -> None:
    pipeline = open_pipeline("manual", live=True)
    write(pipeline, 1)
    pipeline.settle()
    write(pipeline, *range(2, 11))  # with the next one half of live.max_entries
    pipeline.settle()
    assert released(pipeline) == ["001"]
    with pipeline.producer.batch("tracks") as batch:
        batch.delete(["002"])
        batch.upsert(["011"], np.array([[11.0, 1.0]]))
    pipeline.settle()
    assert released(pipeline) == ["001", *(f"{each:03}" for each in range(3, 12))]


def test_deleted_entries_become_a_release_when_they_are_a_tenth(open_pipeline: Open) -> None:
    pipeline = open_pipeline("manual", live=True)
    write(pipeline, *range(40))
    pipeline.settle()
    for number in range(4):
        with pipeline.producer.batch("tracks") as batch:
            batch.delete([f"{number:03}"])
        pipeline.settle()
    assert len(released(pipeline)) == 40
    write(pipeline, 4)  # again as it was; that is not known before it is read
    pipeline.settle()
    assert len(released(pipeline)) == 36
