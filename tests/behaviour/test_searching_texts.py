"""A text index, the whole way: committed, built, served, and carried over to another analyser."""

import numpy as np
import pytest

from indexrelay.schemas.messages import BuildOutcome
from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.testing import MakePipeline, Pipeline

TEXTS = {
    "reimbursement": "公司的报销流程",
    "minutes": "\u1112\u116c\u110b\u1174\u1105\u1169\u11a8",  # 회의록, as macOS writes file names
    "languages": "C++ and C#",
}


@pytest.fixture
def pipeline(indexrelay_pipeline: MakePipeline) -> Pipeline:
    pipeline = indexrelay_pipeline(
        collections={"notes": {"dimension": 2, "metric": "l2"}},
        components={"words": {"kind": "text_index", "from": "notes"}},
    )
    with pipeline.producer.batch("notes") as batch:
        vectors = np.ones((len(TEXTS), 2), dtype=np.float32)
        batch.upsert(list(TEXTS), vectors, texts=list(TEXTS.values()))
    return pipeline


def version(pipeline: Pipeline) -> VersionManifest:
    release = pipeline.store.newest_release()
    assert release is not None
    return pipeline.store.version("words", release.components["words"])


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("报销流程是什么", "reimbursement"),
        ("회의록이 어디에 있나요?", "minutes"),
        ("how do I learn C++?", "languages"),
        ("c#", "languages"),
    ],
)
def test_what_was_committed_is_found_by_a_question_that_contains_it(
    pipeline: Pipeline, question: str, found: str
) -> None:
    reader = pipeline.reader("a")
    pipeline.settle()
    with reader.acquire() as snapshot:
        assert [hit.id for hit in snapshot["words"].search(question)] == [found]


def test_a_version_that_was_cut_in_another_way_is_built_again_once(pipeline: Pipeline) -> None:
    reader = pipeline.reader("a")
    pipeline.settle()
    store, built = pipeline.store, version(pipeline)
    details = {name: value for name, value in built.details.items() if name != "analyser"}
    release = store.newest_release()
    assert release is not None
    store.commit_release(
        Release(
            number=2,
            previous=1,
            reason="as a release before the analyser wrote it",
            components={"words": store.put_version(built.model_copy(update={"details": details}))},
            created_at=release.created_at,
        ).sealed()
    )
    pipeline.advance(seconds=60)
    assert pipeline.results[-1].components["words"].outcome is BuildOutcome.REBUILT
    assert version(pipeline).details["analyser"] == built.details["analyser"]
    assert pipeline.rebuild() is None
    with reader.acquire() as snapshot:
        assert snapshot.release == 3
        assert [hit.id for hit in snapshot["words"].search("报销")] == ["reimbursement"]
