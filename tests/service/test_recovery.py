"""From damaged files to a new version, without an outage: each step over HTTP, and in the log."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from indexrelay.schemas.settings import HttpSettings, Settings
from indexrelay.service.app import create_app
from indexrelay.testing import Pipeline
from tests.fixtures.logs import capture_logs
from tests.service.app_server import running
from tests.streams.polling import eventually

SEARCH = "/v1/components/similar/search"
TEXTS = {"north": "a wind from the north", "low": "a low pressure area", "calm": "no wind at all"}


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    """One release of a search by both, and of one by words, over three texts."""
    settings = Settings.model_validate(
        {
            "namespace": "recovery",
            "data_dir": tmp_path,
            "reader": {"start_spread_seconds": 0, "poll_seconds": 0.05, "block_seconds": 0.05},
            "collections": {"songs": {"dimension": 2, "filterable": {"tenant": "keyword"}}},
            "components": {
                "similar": {"kind": "search", "from": "songs", "vector": {"index": "Flat"}},
                "words": {"kind": "text_index", "from": "songs"},
            },
        }
    )
    with closing(Pipeline(settings, tmp_path)) as pipeline:
        with pipeline.producer.batch("songs") as batch:
            vectors = [[1, row] for row in range(len(TEXTS))]
            batch.upsert([*TEXTS], vectors, texts=[*TEXTS.values()])
        pipeline.settle()
        yield pipeline


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["hits"]]


def problem_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["detail"]


def recovery_of(client: httpx.Client) -> Any:
    songs = client.get("/admin/index/status").json()["collections"]["songs"]
    recovery = songs["components"]["similar"]["recovery"]
    assert songs["available"] is (recovery is None)
    return recovery


def test_damage_is_answered_by_words_and_built_again_although_redis_is_away(
    pipeline: Pipeline,
) -> None:
    pipeline.corrupt("similar")
    with (
        capture_logs() as logged,
        running(create_app(reader := pipeline.reader("late"), HttpSettings())) as client,
    ):
        with pipeline.without_redis():
            eventually(lambda: reader.state.components)
            asked: dict[str, Any] = {"text": "wind", "vector": [1, 0], "weights": {"text": 2}}
            found = client.post(SEARCH, json=asked)
            assert sorted(ids(found)) == ["calm", "north"]
            said = found.json()
            assert (said["component"], said["degraded"]) == ("words", True)
            assert said["reason"] == "similar cannot be served: found by words alone"
            batch = client.post(f"{SEARCH}/batch", json={"queries": [{"text": "low", "k": 1}] * 2})
            for each in batch.json()["answers"]:
                assert (each["component"], each["degraded"]) == ("words", True)
                assert [hit["id"] for hit in each["hits"]] == ["low"]
            assert problem_of(client.post(SEARCH, json={"vector": [1, 0]})) == (
                503,
                "no component 'similar' is served here; there is words",
            )
            queries = [{"text": "low"}, {"vector": [1, 0]}]
            assert client.post(f"{SEARCH}/batch", json={"queries": queries}).status_code == 503
            wrong = client.post(SEARCH, json={"text": "low", "k": 0})
            assert (wrong.status_code, "k" in wrong.json()["detail"]) == (422, True)
            assert recovery_of(client) == "text_search"
            eventually(pipeline.catalog.inbox.open)
            [row] = pipeline.catalog.inbox.open()
            version = reader.state.components["similar"].wanted
            assert row.event_id == f"recovery-similar-{version}-1"
        pipeline.settle()
        eventually(lambda: reader.ready)
        answer = client.post(SEARCH, json={"text": "wind", "vector": [1, 0]})
        assert (answer.json()["component"], answer.json()["degraded"]) == ("similar", False)
        assert reader.state.components["similar"].version != version
        eventually(lambda: recovery_of(client) is None)
    steps = ["component.load_failed", "rebuild.requested", "component.reloaded"]
    events = [line["event"] for line in logged if "similar" in str(line)]
    assert [each for each in events if each in steps] == steps


def test_no_other_component_stands_in_where_it_could_not_do_what_was_asked(
    pipeline: Pipeline,
) -> None:
    pipeline.corrupt("similar")
    reader = pipeline.reader("late")
    with running(create_app(reader, HttpSettings())) as client:
        eventually(lambda: reader.state.components)
        refused = client.post(SEARCH, json={"text": "wind", "diversity": 0.5})
        assert refused.status_code == 503
        assert client.post("/v1/components/nothing/search", json={"text": "a"}).status_code == 503
        assert client.post("/v1/components/similar/count", json={}).status_code == 503
