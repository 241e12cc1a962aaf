"""A catalog that is brought back from an older backup: seen, never counted as served, repaired."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from indexrelay.health.judge import judge
from indexrelay.health.status import BUILDS, PLACES, Code, Condition, Verdict
from indexrelay.health.survey import Survey
from indexrelay.producers.errors import NotServedError
from indexrelay.storage.catalog import Commit
from indexrelay.testing.pipeline import Pipeline
from tests.fixtures.backups import copy_database

MakePipeline = Callable[..., Pipeline]
TABLES = {
    "collections": {"tracks": {"dimension": 2, "metric": "l2"}},
    "components": {"cache": {"kind": "embedding_cache", "from": "tracks"}},
}


def file_of(pipeline: Pipeline) -> Path:
    return Path(pipeline.settings.catalog_url.removeprefix("sqlite:///"))


def commit(pipeline: Pipeline, batch_id: str, *ids: str) -> Commit:
    with pipeline.producer.batch("tracks", batch_id) as batch:
        batch.upsert(list(ids), [[1.0, 2.0]] * len(ids))
    return batch.commit


def judged(pipeline: Pipeline) -> Verdict:
    facts = Survey(
        pipeline.settings,
        catalog=lambda: pipeline.catalog,
        store=lambda: pipeline.store,
        connection=lambda: pipeline.connection,
        clock=pipeline.clock,
    ).whole()
    return judge(facts)


def outrun(pipeline: Pipeline) -> str | None:
    """The sentence about it; every door that is about sources has it."""
    verdict = judged(pipeline)
    found = [each for each in verdict.problems if each.code is Code.COLLECTION_OUTRUN]
    for codes in (PLACES, BUILDS):
        assert [each for each in verdict.within(codes).problems if each in found] == found
    return found[0].what if found else None


def is_served(pipeline: Pipeline, waited: Commit) -> bool:
    try:
        pipeline.producer.wait_served(waited, timeout_seconds=0)
    except NotServedError:
        return False
    return True


def served_ids(pipeline: Pipeline, reader: str) -> set[str]:
    with pipeline.reader(reader).acquire() as snapshot:
        return set(snapshot["cache"].ids)


@pytest.mark.parametrize("again", [1, 2, 3])
def test_what_a_restored_catalog_never_committed_is_not_served_until_it_goes_on_above(
    indexrelay_pipeline: MakePipeline, tmp_path: Path, again: int
) -> None:
    pipeline = indexrelay_pipeline(**TABLES)
    commit(pipeline, "one", "a", "b", "c", "d")
    pipeline.rebuild()
    backup = copy_database(file_of(pipeline), tmp_path / "backup.db")
    lost = [commit(pipeline, f"lost-{number}", f"lost-{number}") for number in (2, 3)]
    pipeline.rebuild()
    pipeline.reader("web")
    assert is_served(pipeline, lost[-1])
    assert outrun(pipeline) is None

    copy_database(backup, file_of(pipeline))
    # The numbers stay behind those that were lost, reach them, or pass them.
    new = [commit(pipeline, f"new-{number}", f"new-{number}") for number in range(again)]
    said = outrun(pipeline)
    assert said is not None
    assert "the catalog went back in time" in said
    assert judged(pipeline).components["cache"].condition is Condition.OUTRUN
    # Nor does a rebuilder take away by itself what was lost, asked for by name or not.
    pipeline.settle()
    pipeline.producer.request_rebuild(["cache"], force=True)
    refused = pipeline.rebuild()
    assert refused is not None
    assert "indexrelay collections restore tracks" in refused.message
    assert "lost-3" in served_ids(pipeline, "web")
    for each in new:
        with pytest.raises(NotServedError, match="went back in time") as caught:
            pipeline.producer.wait_served(each, timeout_seconds=0)
        assert "indexrelay collections restore tracks" in str(caught.value)
    with pytest.raises(NotServedError, match="does not have this commit any more"):
        pipeline.producer.wait_served(lost[-1], timeout_seconds=60)

    restored = pipeline.catalog.collections.restore("tracks", above=3)
    assert restored == max(3, new[-1].generation) + 1
    # Behind is all that it is from here on, for whoever looks before the build.
    assert outrun(pipeline) is None
    assert judged(pipeline).components["cache"].condition is Condition.BEHIND
    assert not any(is_served(pipeline, each) for each in new)
    pipeline.settle()
    assert outrun(pipeline) is None
    assert judged(pipeline).components["cache"].condition is Condition.CURRENT
    assert served_ids(pipeline, "web") == {
        "a",
        "b",
        "c",
        "d",
        *(f"new-{number}" for number in range(again)),
    }
    assert all(is_served(pipeline, each) for each in new)


def test_another_catalog_is_another_epoch_and_an_empty_one_is_told(
    indexrelay_pipeline: MakePipeline, tmp_path: Path
) -> None:
    pipeline = indexrelay_pipeline(**TABLES)
    empty = copy_database(file_of(pipeline), tmp_path / "empty.db")
    first = commit(pipeline, "one", "a", "b")
    pipeline.rebuild()
    pipeline.reader("web")
    copy_database(empty, file_of(pipeline))
    assert Code.COLLECTION_GONE in {each.code for each in judged(pipeline).problems}
    other = commit(pipeline, "one", "a", "b")
    assert other.epoch != first.epoch
    assert not is_served(pipeline, other)
    pipeline.settle()
    assert is_served(pipeline, other)


def test_two_catalogs_at_once_on_one_store_of_artifacts_are_named_by_both(
    indexrelay_pipeline: MakePipeline, tmp_path: Path
) -> None:
    first = indexrelay_pipeline(**TABLES)
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "artifacts").symlink_to(first.settings.artifacts_dir)
    second = Pipeline(first.settings, tmp_path / "second", clock=first.clock)

    def built(pipeline: Pipeline, name: str) -> None:
        commit(pipeline, name, name)
        assert pipeline.rebuild() is not None
        pipeline.clock.advance(60)

    def named() -> list[bool]:
        codes = [{each.code for each in judged(each).problems} for each in (first, second)]
        return [Code.CATALOGS_MIXED in each for each in codes]

    built(first, "a")
    assert named() == [False, False]
    built(second, "b")
    assert named() == [True, False]  # for the second it may be a move from one to the other
    built(first, "c")
    assert named() == [True, True]
    [problem] = [each for each in judged(first).problems if each.code is Code.CATALOGS_MIXED]
    assert problem in judged(first).within(PLACES).problems
    # Once the other is not used any more, the next builds say so.
    built(first, "d")
    assert named()[0] is False
    second.close()


def test_a_job_with_data_of_its_own_that_gives_an_id_again_lost_nothing(
    indexrelay_pipeline: MakePipeline, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "books.db")) as database, database:
        database.execute("CREATE TABLE books (id TEXT PRIMARY KEY, vector BLOB)")
        database.execute("INSERT INTO books VALUES ('a', x'0000803f00000040')")
    table = {"kind": "table", "url": f"sqlite:///{tmp_path / 'books.db'}", "table": "books"}
    pipeline = indexrelay_pipeline(
        collections={"books": {"dimension": 2, "source": table}},
        components={"cache": {"kind": "embedding_cache", "from": "books"}},
    )
    pipeline.reader("web")
    for _night in range(3):
        done = pipeline.producer.batch_completed("books", batch_id="nightly")
        assert outrun(pipeline) is None
        assert not is_served(pipeline, done)
        pipeline.settle()
        assert is_served(pipeline, done)
    last = pipeline.producer.batch_completed("books", batch_id="nightly")
    assert last.generation == done.generation + 1
    assert is_served(pipeline, done)  # the commit that came after it has its id
