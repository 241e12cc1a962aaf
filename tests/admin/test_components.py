"""The page of a component, its versions, and two of them compared."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from indexrelay.admin.components import _tried, bounded
from indexrelay.schemas.gates import RECALL
from indexrelay.testing import MakePipeline, Pipeline
from tests.admin.desk import Desk, desk_of

HOSTILE = "<img src=x onerror=alert(1)>\x1b]0;owned\x07"


def commit(pipeline: Pipeline, seed: int, count: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert([f"t{seed}_{number}" for number in range(count)], vectors)
    pipeline.settle()


@pytest.fixture
def desk(indexrelay_pipeline: MakePipeline) -> Iterator[Desk]:
    """Two versions of an index, the second of which two readers serve."""
    pipeline = indexrelay_pipeline(
        collections={"tracks": {"dimension": 8}},
        components={"similar": {"kind": "vector_index", "from": "tracks", "index": "Flat"}},
    )
    commit(pipeline, 1, 50)
    pipeline.reader("web-1")
    pipeline.reader("web-2")
    commit(pipeline, 2, 10)
    with desk_of(pipeline) as desk:
        desk.look()
        yield desk


def versions(desk: Desk) -> list[Any]:
    found: list[Any] = desk.get("components/similar")["versions"]
    return found


def test_the_page_shows_the_definition_the_checks_and_who_serves_which_version(desk: Desk) -> None:
    page = desk.get("components/similar")
    assert (page["kind"], page["condition"], page["entries"]) == ("vector_index", "current", 60)
    assert page["definition"]["inputs"] == ["tracks"]
    assert page["definition"]["parameters"] == {"index": "Flat"}
    recall = next(check for check in page["checks"] if check["name"] == RECALL)
    assert recall["passed"]
    assert recall["measured"] >= recall["limit"]
    assert page["index"]
    new, old = page["versions"]
    assert (new["released"], new["served_by"], new["entries"]) == (True, 2, 60)
    assert (old["released"], old["served_by"], old["entries"]) == (False, 0, 50)
    assert (old["first_release"], old["last_release"], new["first_release"]) == (1, 1, 2)
    assert "trials" in page


def test_a_version_is_shown_with_its_files_and_readers(desk: Desk) -> None:
    new = versions(desk)[0]
    page = desk.get(f"components/similar/versions/{new['id']}")
    assert page["readers"] == ["web-1", "web-2"]
    assert page["bytes"] == sum(each["bytes"] for each in page["files"])
    assert {check["file"] for check in page["checks"]} >= {each["name"] for each in page["files"]}
    desk.get(f"components/similar/versions/{'0' * 64}", status=404)
    desk.get("components/similar/versions/..%2F..%2Fetc", status=404)
    assert "similar" in desk.get("components/similer", status=404)["detail"]
    assert desk.get("components/Similar", status=422)["errors"][0]["field"] == "name"


def test_two_versions_are_compared_figure_by_figure(desk: Desk) -> None:
    new, old = versions(desk)
    found = desk.get("components/similar/compare", a=old["id"], b=new["id"])
    facts = {each["name"]: each for each in found["facts"]}
    assert (facts["entries"]["a"], facts["entries"]["b"]) == (50, 60)
    assert facts["covers tracks"]["b"] == 2
    assert facts["index"]["same"]
    assert facts["size"]["unit"] == "bytes"
    checks = {each["name"]: each for each in found["checks"]}
    assert checks[RECALL]["passed"] == [True, True]
    desk.get("components/similar/compare", status=422, a="x", b=new["id"])


def test_what_auto_tried_is_laid_out_and_what_a_kind_says_is_shown_as_text(desk: Desk) -> None:
    store = desk.pipeline.store
    newest = store.newest_release()
    assert newest is not None
    manifest = store.version("similar", newest.components["similar"])
    tried = {"rows": 1000, "seconds": 3.0, "bytes": 4096, "front": True, "short_of": []}
    details = {
        "index": "HNSW32",
        "reason": HOSTILE,
        "attempts": [
            {**tried, "index": "HNSW32", "milliseconds": 0.075, "recall": 0.972},
            {**tried, "index": HOSTILE, "milliseconds": "fast", "rows": 10, "short_of": ["recall"]},
            "no table",
        ],
        "effort": {"ef_search": 64},
        "trials": [{"ef_search": 64, "recall": 0.972, "milliseconds": 0.075}],
        "said": HOSTILE,
        "long": list(range(5000)),
    }
    changed = manifest.model_copy(update={"details": details})
    version = store.put_version(changed)
    store.commit_release(
        newest.model_copy(
            update={"number": 3, "previous": 2, "components": {"similar": version}, "digest": ""}
        )
    )
    desk.look()
    page = desk.get("components/similar")
    chosen, other = page["pareto"]
    assert (chosen["index"], chosen["chosen"], chosen["recall"]) == ("HNSW32", True, 0.972)
    assert chosen["latency_us"] == pytest.approx(75)
    assert (other["foreseen"], other["latency_us"], other["short_of"]) == (True, None, ["recall"])
    assert page["trials"] == [
        {
            "effort": {"ef_search": 64},
            "recall": 0.972,
            "latency_us": pytest.approx(75),
            "chosen": True,
        }
    ]
    for text in (page["index_reason"], other["index"], page["details"]["said"]):
        assert text == "<img src=x onerror=alert(1)>\\x1b]0;owned\\x07"
    assert len(page["details"]["long"]) == 101


def test_values_of_others_are_cut_in_length_breadth_and_depth() -> None:
    deep: Any = "end"
    for _ in range(50):
        deep = {"in": deep}
    assert bounded(deep) == {"in": {"in": {"in": {"in": {"in": "…"}}}}}
    assert len(bounded("x" * 10_000)) <= 500
    wide = bounded({str(number): number for number in range(1000)})
    assert (len(wide), wide["…"]) == (101, "900 more")
    assert bounded([None, True, 1.5]) == [None, True, 1.5]


@pytest.mark.parametrize(
    "figure", [10**400, -(10**400), float("inf"), float("nan"), True, "7", 1e308]
)
def test_a_figure_that_is_no_number_is_left_out(figure: object) -> None:
    attempt = dict.fromkeys(("rows", "recall", "milliseconds", "bytes", "seconds"), figure)
    assert json.loads(json.dumps(bounded(attempt), allow_nan=False)).keys() == attempt.keys()
    tried = _tried(attempt, "Flat", 0)
    assert tried.recall == (figure if figure == 1e308 else None)
    assert tried.latency_us is None
    json.dumps(tried.model_dump(mode="json"), allow_nan=False)


def test_a_whole_number_that_nobody_reads_is_cut() -> None:
    assert bounded(10**10_000) == "…"
