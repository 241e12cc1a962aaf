"""What an operator is told of each collection over HTTP, and a rebuild that is asked for there."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from indexrelay.components.text_index import TextIndex
from indexrelay.reloaders import Reloader
from indexrelay.schemas.settings import (
    EmbedderSettings,
    HttpSettings,
    Settings,
    TokenSettings,
)
from indexrelay.service.app import create_app
from indexrelay.service.tokens import digest_of
from indexrelay.storage.audit import AuditLog
from indexrelay.testing import Pipeline

STATUS, REBUILD = "/admin/index/status", "/admin/index/rebuild"
VECTORS = np.random.default_rng(7).standard_normal((40, 3)).astype(np.float32)


SETTINGS = Settings.model_validate(
    {
        "namespace": "test",
        "collections": {
            "notes": {"dimension": 3, "live": True, "filterable": {"topic": "keyword"}},
            "empty": {"dimension": 2},
        },
        "components": {
            "near": {"kind": "vector_index", "from": "notes", "index": "Flat"},
            "words": {"kind": "text_index", "from": "notes"},
        },
    }
)


@contextmanager
def opened(folder: Path) -> Iterator[Pipeline]:
    """A pipeline that serves forty notes."""
    with closing(Pipeline(SETTINGS, folder)) as pipeline:
        write(pipeline, range(40))
        pipeline.reader("a")
        pipeline.settle()
        yield pipeline


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    with opened(tmp_path) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """For tests that change nothing of it."""
    with opened(tmp_path_factory.mktemp("unchanged")) as pipeline:
        yield pipeline


def write(pipeline: Pipeline, numbers: range, *, topic: str = "first") -> None:
    with pipeline.producer.batch("notes") as batch:
        batch.upsert(
            [f"note-{each}" for each in numbers],
            VECTORS[list(numbers)],
            texts=[f"note {each} about {topic}" for each in numbers],
            payloads=[{"topic": topic} for _ in numbers],
        )


def asking(reader: Reloader, http: HttpSettings | None = None) -> TestClient:
    """Asks a service on this reader, which looks for releases when the test says so."""
    return TestClient(create_app(reader, http))


def status(client: TestClient) -> Any:
    answer = client.get(STATUS)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_collection_tells_whose_entries_it_has_and_how_they_can_be_asked(
    unchanged: Pipeline,
) -> None:
    answer = asking(unchanged.reader("a")).get("/v1/collections").json()
    assert set(answer["collections"]) == {"notes", "empty"}
    notes = answer["collections"]["notes"]
    assert (notes["dimension"], notes["metric"], notes["live"]) == (3, "cosine", True)
    assert notes["fields"] == {"topic": "keyword"}
    assert {name: each["answers"] for name, each in notes["components"].items()} == {
        "near": ["vector", "id", "like"],
        "words": ["text"],
    }
    assert [each["entries"] for each in notes["components"].values()] == [40, 40]
    assert answer["collections"]["empty"]["components"] == {}


def test_a_collection_with_an_embedder_is_asked_by_text_wherever_it_has_vectors(
    unchanged: Pipeline,
) -> None:
    embedder = EmbedderSettings(function="indexrelay.console.demo.embedding:embed")
    notes = unchanged.settings.collections["notes"].model_copy(update={"embedder": embedder})
    collections = {**unchanged.settings.collections, "notes": notes}
    settings = unchanged.settings.model_copy(update={"collections": collections})
    reader = Reloader(settings, store=unchanged.store, connection=unchanged.connection)
    reader.step()
    answer = asking(reader).get("/v1/collections").json()["collections"]["notes"]
    reader.stop()
    assert answer["embedder"] == "indexrelay.console.demo.embedding:embed"
    assert {name: each["answers"] for name, each in answer["components"].items()} == {
        "near": ["text", "vector", "id", "like"],
        "words": ["text"],
    }


def test_the_status_of_a_collection_that_is_well_has_no_reasons(unchanged: Pipeline) -> None:
    answer = status(asking(unchanged.reader("a")))
    notes = answer["collections"]["notes"]
    assert (answer["well"], answer["problems"], answer["unknown"]) == (True, [], None)
    assert (notes["available"], notes["reasons"], notes["rebuild_needed"]) == (True, [], False)
    assert (notes["entries"], notes["dimension"], notes["committed_generation"]) == (40, 3, 1)
    assert (notes["tombstone_ratio"], notes["delta_share"]) == (0.0, 0.0)
    assert (notes["last_release"], notes["model"]) == (1, None)
    assert notes["last_persisted_at"] is not None
    assert not answer["collections"]["empty"]["available"], "nothing is built from it"


def test_what_was_changed_since_a_base_is_a_share_of_it(pipeline: Pipeline) -> None:
    write(pipeline, range(2), topic="second")
    pipeline.settle()
    notes = status(asking(pipeline.reader("a")))["collections"]["notes"]
    assert notes["components"]["near"]["tombstone_ratio"] == pytest.approx(2 / 40)
    assert notes["components"]["near"]["delta_share"] == pytest.approx(2 / 40)
    assert notes["components"]["words"]["tombstone_ratio"] is None
    assert notes["tombstone_ratio"] == pytest.approx(2 / 40)
    assert notes["last_release"] == 2


def test_what_is_committed_and_not_released_needs_a_rebuild_once_a_second_is_over(
    pipeline: Pipeline,
) -> None:
    client = asking(pipeline.reader("a"))
    first = status(client)
    write(pipeline, range(3), topic="second")
    assert status(client) == first, "an answer serves for a second"
    notes = status(asking(pipeline.reader("a")))["collections"]["notes"]
    assert notes["committed_generation"] == 2
    assert (notes["available"], notes["rebuild_needed"]) == (True, True)
    assert notes["components"]["near"]["condition"] == "behind"
    assert any("near" in reason for reason in notes["reasons"])


def test_a_component_of_which_no_version_is_whole_is_built_again_from_the_entries(
    pipeline: Pipeline,
) -> None:
    pipeline.corrupt("near")
    late = pipeline.reader("late")
    answer = status(asking(late))
    notes = answer["collections"]["notes"]
    assert not answer["well"]
    assert (notes["available"], notes["rebuild_needed"]) == (False, True)
    assert [each["served"] for each in notes["components"].values()] == [False, True]
    assert [each["recovery"] for each in notes["components"].values()] == ["rebuild", None]
    assert any(reason.startswith("near: ") for reason in notes["reasons"])
    pipeline.settle()
    answer = status(asking(late))
    notes = answer["collections"]["notes"]
    assert (answer["well"], notes["available"], notes["reasons"]) == (True, True, [])
    assert notes["components"]["near"]["entries"] == 40


def test_an_earlier_version_that_is_whole_serves_instead_of_one_that_is_not(
    pipeline: Pipeline,
) -> None:
    store, version = pipeline.store, pipeline.reader("a").state.components["words"].version or ""
    before = set(store.version("words", version).files.values())
    write(pipeline, range(2), topic="second")
    pipeline.settle()
    version = pipeline.reader("a").state.components["words"].version or ""
    for path in map(store.blob, {*store.version("words", version).files.values()} - before):
        path.unlink()
    notes = status(asking(pipeline.reader("late")))["collections"]["notes"]
    words = notes["components"]["words"]
    assert (words["served"], words["recovery"], words["generation"]) == (
        True,
        "earlier_version",
        2,
    ), "live changes are laid over it"
    assert words["error"]
    assert notes["available"]


def test_no_recovery_is_shown_of_a_load_that_fails_although_the_files_are_whole(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_given: object) -> object:
        raise ValueError("it fails here")

    monkeypatch.setattr(TextIndex, "load", load)
    words = status(asking(pipeline.reader("late")))["collections"]["notes"]["components"]["words"]
    assert (words["served"], words["recovery"]) == (False, None)
    assert "it fails here" in words["error"]


def test_a_rebuild_that_is_asked_for_is_a_row_that_a_rebuilder_answers(pipeline: Pipeline) -> None:
    client = asking(pipeline.reader("a"))
    answer = client.post(REBUILD, json={"components": ["words"], "full": True, "reason": "a try"})
    assert answer.status_code == 202, answer.text
    request_id = answer.json()["request_id"]
    [row] = pipeline.catalog.inbox.open()
    assert (row.event_id, row.requested) == (request_id, True)
    result = pipeline.rebuild()
    assert result is not None
    assert result.indexes_rebuilt == ("words",)
    answered = pipeline.catalog.inbox.answer(request_id)
    assert answered is not None
    assert answered.finished


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"components": ["nowhere"]}, "components: the settings declare no nowhere"),
        ({"components": ["a\nb"]}, "components.0: "),
        ({"components": "words"}, "components: "),
        ({"full": "yes"}, "full: "),
        ({"reason": "x" * 1001}, "reason: "),
        ({"everything": True}, "unknown: 'everything'"),
    ],
)
def test_a_rebuild_that_cannot_be_asked_for_names_the_field(
    unchanged: Pipeline, body: Any, said: str
) -> None:
    answer = asking(unchanged.reader("a")).post(REBUILD, json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]
    assert not unchanged.catalog.inbox.open()


def test_a_reader_without_the_catalog_says_what_it_does_not_know(
    unchanged: Pipeline, tmp_path: Path
) -> None:
    pipeline = unchanged
    elsewhere = pipeline.settings.model_copy(
        update={
            "catalog": pipeline.settings.catalog.model_validate(
                {"url": f"sqlite:///{tmp_path}/elsewhere/catalog.db"}
            )
        }
    )
    far = Reloader(
        elsewhere,
        reader_id="far",
        store=pipeline.store,
        connection=pipeline.connection,
        clock=pipeline.clock,
    )
    far.step()
    client = asking(far)
    answer, refused = status(client), client.post(REBUILD, json={})
    far.stop()
    notes = answer["collections"]["notes"]
    assert "cannot open the catalog" in answer["unknown"]
    assert (notes["available"], notes["rebuild_needed"], notes["entries"]) == (True, None, None)
    assert refused.status_code == 503
    assert "indexrelay rebuild" in refused.json()["detail"]
    assert not (tmp_path / "elsewhere").exists(), "a reader makes no catalog"


def test_only_a_token_of_the_scope_admin_asks(pipeline: Pipeline) -> None:
    tokens = {
        "admin": TokenSettings(sha256=digest_of("of-an-admin"), scope="admin"),
        "read": TokenSettings(sha256=digest_of("of-a-reader"), scope="read"),
        "tenant": TokenSettings(sha256=digest_of("of-a-tenant"), filter={"topic": "first"}),
    }
    client = asking(pipeline.reader("a"), HttpSettings(tokens=tokens))

    def asked(token: str) -> tuple[int, int, int]:
        headers = {"Authorization": f"Bearer {token}"}
        return (
            client.get(STATUS, headers=headers).status_code,
            client.post(REBUILD, json={}, headers=headers).status_code,
            client.get("/v1/collections", headers=headers).status_code,
        )

    assert asked("of-an-admin") == (200, 202, 200)
    assert asked("of-a-reader") == (403, 403, 200)
    assert asked("of-a-tenant") == (403, 403, 403), "it shows what everybody has"
    assert client.get(STATUS).status_code == 401
    *_, line = AuditLog.of(pipeline.settings).newest(10)
    assert (line["action"], line["who"]) == ("rebuild_requested", "token/admin")
