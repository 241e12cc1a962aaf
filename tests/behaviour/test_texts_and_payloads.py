"""Texts and payloads through a whole pipeline: kept, set, cleared, and kept from vanishing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from indexrelay.components.json_cache import CollectionReader
from indexrelay.schemas.messages import BuildOutcome
from indexrelay.testing import MakePipeline, Pipeline

HERE = "tests.behaviour.test_texts_and_payloads"
COMPONENTS = {
    "similar": {"kind": "vector_index", "from": "tracks"},
    "words": {"kind": "text_index", "from": "tracks"},
    "page": {"kind": "json_cache", "from": "tracks", "function": f"{HERE}:page"},
}
IDS = [f"id{number:03d}" for number in range(60)]


def page(inputs: Mapping[str, CollectionReader]) -> dict[str, Any]:
    """The document: each entry's text and payload."""
    return {entry.id: [entry.text, entry.payload] for entry in inputs["tracks"]}


def vectors(seed: int, count: int = len(IDS)) -> Any:
    return np.random.default_rng(seed).standard_normal((count, 4), np.float32)


@pytest.fixture
def pipeline(indexrelay_pipeline: MakePipeline) -> Pipeline:
    pipeline = indexrelay_pipeline(collections={"tracks": {"dimension": 4}}, components=COMPONENTS)
    pipeline.reader("a")
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(IDS, vectors(1), [f"song {id_}" for id_ in IDS], [{"n": id_} for id_ in IDS])
    pipeline.settle()
    return pipeline


def served(pipeline: Pipeline, entry_id: str) -> tuple[Any, Any, Any, Any, Any]:
    """What the components say of an entry: two payloads, two texts, and whether words find it."""
    with pipeline.reader("a").acquire() as snapshot:
        text, payload = snapshot["page"].document[entry_id]
        found = entry_id in [hit.id for hit in snapshot["words"].search(entry_id, k=1)]
        payloads = (snapshot["similar"].payload(entry_id), snapshot["words"].payload(entry_id))
        assert payloads == (payload, payload)
        assert snapshot["words"].text(entry_id) == text
    return text, payload, found, *_counts(pipeline)


def _counts(pipeline: Pipeline) -> tuple[int, int]:
    release = pipeline.store.newest_release()
    assert release is not None
    words = pipeline.store.version("words", release.components["words"]).counts
    similar = pipeline.store.version("similar", release.components["similar"]).counts
    assert similar["payloads"] == words["payloads"]
    return words["texts"], words["payloads"]


@pytest.mark.parametrize("again", [2, len(IDS)], ids=["some", "all"])
def test_what_is_embedded_again_keeps_its_text_and_payload(pipeline: Pipeline, again: int) -> None:
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(IDS[:again], vectors(2, again))
    pipeline.settle()
    assert served(pipeline, IDS[0]) == (f"song {IDS[0]}", {"n": IDS[0]}, True, 60, 60)
    with pipeline.reader("a").acquire() as snapshot:
        vector = snapshot["similar"].vector(IDS[0])
        assert vector == pytest.approx(vectors(2)[0] / np.linalg.norm(vectors(2)[0]), abs=1e-6)


def test_texts_and_payloads_that_are_set_or_cleared_alone_reach_every_component(
    pipeline: Pipeline,
) -> None:
    with pipeline.producer.batch("tracks") as batch:
        batch.set_texts(["id000"], ["other words"])
        batch.set_payloads(["id001"], [{"n": 1}])
        batch.clear_texts(["id002"])
        batch.clear_payloads(["id003"])
    pipeline.settle()
    result = pipeline.results[-1]
    assert {each.outcome for each in result.components.values()} == {BuildOutcome.REBUILT}
    assert served(pipeline, "id000") == ("other words", {"n": "id000"}, False, 59, 59)
    assert served(pipeline, "id001") == ("song id001", {"n": 1}, True, 59, 59)
    assert served(pipeline, "id002")[:3] == (None, {"n": "id002"}, False)
    assert served(pipeline, "id003")[:3] == ("song id003", None, True)
    with pipeline.reader("a").acquire() as snapshot:
        assert snapshot["words"].search("other", k=1)[0].id == "id000"


@pytest.mark.parametrize(
    ("column", "component"),
    [("texts", "words"), ("payloads", "words"), ("payloads", "similar")],
)
def test_a_version_that_lost_most_texts_or_payloads_is_not_released_until_it_is_forced(
    pipeline: Pipeline, column: str, component: str
) -> None:
    with pipeline.producer.batch("tracks") as batch:
        clear = batch.clear_texts if column == "texts" else batch.clear_payloads
        clear(IDS[6:])
    pipeline.settle()
    result = pipeline.results[-1]
    failed = result.components[component]
    assert failed.outcome is BuildOutcome.FAILED
    assert f"6 {column} where the last version has 60" in (failed.error or "")
    assert f"rebuild {component} --force" in (failed.error or "")
    with pipeline.reader("a").acquire() as snapshot:
        if column == "texts":
            assert snapshot["words"].texts == 60
        else:
            assert snapshot[component].payload("id050") == {"n": "id050"}
    pipeline.producer.request_rebuild([component], force=True)
    pipeline.settle()
    assert pipeline.results[-1].components[component].outcome is BuildOutcome.REBUILT
    with pipeline.reader("a").acquire() as snapshot:
        assert snapshot[component].payload("id050") == (
            None if column == "payloads" else {"n": "id050"}
        )


def test_a_table_whose_columns_became_null_is_not_released(
    indexrelay_pipeline: MakePipeline, tmp_path: Path
) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'user.db'}", poolclass=sa.NullPool)

    def run(statement: str, *rows: dict[str, Any]) -> None:
        with engine.begin() as connection:
            connection.execute(sa.text(statement), list(rows) or None)

    run("CREATE TABLE t (id TEXT, vector BLOB, words TEXT, extra TEXT, at INTEGER)")
    run(
        "INSERT INTO t VALUES (:id, :vector, :id, '{}', 1)",
        *({"id": id_, "vector": row.tobytes()} for id_, row in zip(IDS, vectors(1), strict=True)),
    )
    source = {
        "kind": "table",
        "url": f"sqlite:///{tmp_path / 'user.db'}",
        "table": "t",
        "text_column": "words",
        "payload_column": "extra",
        "updated_at_column": "at",
    }
    pipeline = indexrelay_pipeline(
        collections={"tracks": {"dimension": 4, "source": source}},
        components={name: COMPONENTS[name] for name in ("similar", "words")},
    )
    pipeline.producer.batch_completed("tracks")
    pipeline.settle()
    for change, said in (
        (
            "UPDATE t SET words = NULL, at = 2",
            {"words": "0 texts where the last version has 60"},
        ),
        (
            "UPDATE t SET words = id, extra = NULL, at = 3",
            {"words": "0 payloads", "similar": "0 payloads"},
        ),
        ("UPDATE t SET vector = NULL, at = 4", {"words": "0 entries", "similar": "0 entries"}),
    ):
        run(change)
        pipeline.producer.batch_completed("tracks")
        pipeline.settle()
        failed = pipeline.results[-1].components
        for component, error in said.items():
            assert failed[component].outcome is BuildOutcome.FAILED
            assert error in (failed[component].error or "")
    release = pipeline.store.newest_release()
    assert release is not None
    assert pipeline.store.version("words", release.components["words"]).counts["texts"] == 60


def test_rows_that_are_not_embedded_yet_are_left_out_and_written_into_the_manifest(
    indexrelay_pipeline: MakePipeline, tmp_path: Path
) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'user.db'}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE t (id TEXT, vector TEXT)"))
        connection.execute(sa.text("INSERT INTO t VALUES ('a', '[1,2,3,4]'), ('b', NULL)"))
    source = {"kind": "table", "url": f"sqlite:///{tmp_path / 'user.db'}", "table": "t"}
    pipeline = indexrelay_pipeline(
        collections={"tracks": {"dimension": 4, "source": source}},
        components={"similar": COMPONENTS["similar"]},
    )
    commit = pipeline.producer.batch_completed("tracks")
    reader = pipeline.reader("a")
    pipeline.settle()
    with reader.acquire() as snapshot:
        assert list(snapshot["similar"].ids) == ["a"]
        assert snapshot.manifest("similar").left_out == {"tracks": {"without_vector": 1}}
        assert snapshot.manifest("similar").covers["tracks"] == commit.generation
