"""Searches by text in a collection with an embedder: by the vector, or by words where it fails."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from indexrelay.components.errors import EmbedderFunctionError
from indexrelay.reloaders import Reloader
from indexrelay.schemas.session import HEADER, SessionToken
from indexrelay.schemas.settings import (
    CollectionSettings,
    ComponentDefinition,
    EmbedderSettings,
    HttpSettings,
)
from indexrelay.service import AsyncClient, Client
from indexrelay.service.app import create_app
from indexrelay.service.client import InvalidRequestError
from indexrelay.testing.pipeline import Pipeline
from tests.reloaders.bench import Bench
from tests.service.app_server import running
from tests.service.conftest import CONTENTS, KINDS, publish_all
from tests.service.test_writes import ENTRIES, serving, settings_in

MODULE = "function_of_the_text_tests"
VECTORS = {"north": [5.0, 5.0], "lo": [4.0, 0.0], "read": [1.0, 0.0], "words": [9.0, 9.0]}


class Function:
    """Knows a few texts; one hangs until `open` is set, and others raise."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.open = threading.Event()
        self.hangs = threading.Event()

    def __call__(self, texts: list[str]) -> Any:
        if texts == ["words"]:  # the first one, at the start
            return [VECTORS["words"]]
        self.calls.append(texts)
        if "hangs" in texts:
            self.hangs.set()
            self.open.wait(30)
            return [VECTORS["north"]] * len(texts)
        return [VECTORS[text] for text in texts]


@pytest.fixture
def function() -> Iterator[Function]:
    module = sys.modules[MODULE] = ModuleType(MODULE)
    module.function = found = Function()  # type: ignore[attr-defined]
    yield found
    found.open.set()
    del sys.modules[MODULE]


Serve = Callable[..., Any]


@pytest.fixture
def serve(bench: Bench, function: Function) -> Serve:
    """Runs a service over a collection that has an embedder."""
    assert function

    @contextmanager
    def serving(
        http: HttpSettings | None = None,
        *,
        kinds: Any = KINDS,
        last: Sequence[str] = (),
        **keys: Any,
    ) -> Iterator[httpx.Client]:
        table = {"function": f"{MODULE}:function", **keys}
        tracks = CollectionSettings.model_validate(
            {"dimension": 2, "metric": "l2", "embedder": table}
        )
        declared = {name: ComponentDefinition.of(kind, "tracks") for name, kind in kinds.items()}
        bench.settings = bench.settings.model_copy(
            update={"collections": {"tracks": tracks}, "components": declared}
        )
        reader = bench.reader()
        publish_all(bench)
        for name in last:  # which then covers more than the others
            bench.publish_texts({name: CONTENTS[name]}, kind=KINDS[name])
        reader.step()
        with running(create_app(reader, http)) as client:
            yield client

    return serving


@pytest.fixture
def client(serve: Serve) -> Iterator[httpx.Client]:
    with serve() as found:
        yield found


def search(client: httpx.Client, component: str, **asked: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/components/{component}/search", json=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["id"] for hit in answer["hits"]]


def test_a_component_of_vectors_is_searched_by_the_vector_of_the_text(client: httpx.Client) -> None:
    answer = search(client, "points", text="north", k=1)
    assert ids(answer) == ["c"]
    assert (answer["degraded"], answer["reason"]) == (False, None)
    assert answer["hits"] == search(client, "points", vector=[5, 5], k=1)["hits"]


def test_a_component_of_both_is_searched_by_the_text_and_its_vector(client: httpx.Client) -> None:
    answer = search(client, "songs", text="lo")
    assert answer["hits"] == search(client, "songs", text="lo", vector=[4, 0])["hits"]
    assert ids(answer) == ["loud", "slow"]


@pytest.mark.parametrize(
    ("component", "asked"),
    [
        ("lines", {"text": "read"}),
        ("songs", {"vector": [4, 0]}),
        ("songs", {"text": "lo", "vector": [0, 0]}),
        ("songs", {"text": "lo", "weights": {"vector": 0, "text": 1}}),
        ("songs", {"id": "calm"}),
    ],
)
def test_what_needs_no_vector_of_a_text_is_asked_as_ever(
    client: httpx.Client, function: Function, component: str, asked: dict[str, Any]
) -> None:
    answer = search(client, component, **asked)
    assert not answer["degraded"]
    assert function.calls == ([["read"]] if component == "lines" else [])  # it may be of any kind


def test_without_a_vector_a_component_of_both_finds_words_and_says_that_it_is_less(
    client: httpx.Client,
) -> None:
    answer = search(client, "songs", text="low")  # its vector raises a KeyError: 'low'
    assert ids(answer) == ["slow"]
    assert answer["degraded"] is True
    assert answer["reason"] == "the embedder raised KeyError: found by words alone"


def test_without_a_vector_another_component_of_the_collection_finds_words(
    client: httpx.Client,
) -> None:
    answer = search(client, "points", text="split")
    assert (answer["component"], ids(answer)) == ("lines", ["split a path"])
    lines = search(client, "lines", text="split")
    assert [answer[each] for each in ("version", "generations", "session")] == [
        lines[each] for each in ("version", "generations", "session")
    ]
    assert answer["degraded"] is True
    # One that takes the options of the search.
    answer = search(client, "points", text="low", filter={"genre": "jazz"})
    assert (answer["component"], ids(answer)) == ("songs", ["slow"])


def test_another_component_finds_words_only_where_it_is_as_fresh_as_was_asked(serve: Serve) -> None:
    with serve(last=["points", "songs"]) as client:
        session = search(client, "points", vector=[0, 0])["session"]
        assert search(client, "points", text="split")["component"] == "lines"
        assert search(client, "points", text="split", session=session)["component"] == "songs"
    with serve(last=["songs", "points"]) as client:
        session = search(client, "points", vector=[0, 0])["session"]
        asked = {"text": "split", "session": session}
        refused = client.post("/v1/components/points/search", json=asked)
        assert refused.status_code == 503
        assert refused.json()["detail"].startswith("the embedder of tracks gave no vector")


def test_a_batch_gives_the_session_of_every_component_that_answered(client: httpx.Client) -> None:
    queries = [{"vector": [0, 0]}, {"text": "split"}]
    answer = client.post("/v1/components/points/search/batch", json={"queries": queries})
    seen = [SessionToken.from_text(each["session"]) for each in answer.json()["answers"]]
    assert seen[0] != seen[1]
    assert SessionToken.from_text(answer.headers[HEADER]) == seen[0].merge(seen[1])


def test_where_nothing_finds_words_there_is_no_answer_now(client: httpx.Client) -> None:
    refused = client.post(
        "/v1/components/points/search", json={"text": "secret", "group_by": "genre"}
    )
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["detail"].startswith("the embedder of tracks gave no vector")
    assert "secret" not in refused.text


def test_an_embedder_that_hangs_keeps_no_other_search_waiting_not_even_on_one_thread(
    serve: Serve, function: Function
) -> None:
    with serve(HttpSettings(searches=1), query_seconds=30) as client:
        found: list[dict[str, Any]] = []
        asking = threading.Thread(
            target=lambda: found.append(search(client, "points", text="hangs", k=1))
        )
        asking.start()
        assert function.hangs.wait(30)
        assert ids(search(client, "points", vector=[0, 0], k=1)) == ["a"]
        assert not found
        function.open.set()
        asking.join()
    assert ids(found[0]) == ["c"]


def test_an_embedder_that_is_too_slow_is_not_waited_for(serve: Serve) -> None:
    with serve(query_seconds=0.01) as client:
        answer = search(client, "songs", text="hangs")
        assert answer["reason"] == "the embedder gave no vector in time: found by words alone"


def test_the_texts_of_a_batch_go_into_one_call_and_one_without_a_vector_is_told_in_its_place(
    client: httpx.Client, function: Function
) -> None:
    queries = [
        {"text": "north", "k": 1},
        {"text": "split"},
        {"vector": [0, 0], "k": 1},
        {"text": "nobody", "group_by": "genre"},
        {"text": "read", "k": 1},
    ]
    answer = client.post("/v1/components/points/search/batch", json={"queries": queries})
    first, second, third, fourth, fifth = answer.json()["answers"]
    assert [ids(each) for each in (first, second, third, fifth)] == [
        ["c"],
        ["split a path"],
        ["a"],
        ["b"],
    ]
    degraded = [each["degraded"] for each in (first, second, third, fifth)]
    assert degraded == [False, True, False, False]
    assert fourth["status"] == 503
    assert function.calls[0] == ["north", "split", "nobody", "read"]


def test_a_batch_of_texts_alone_is_searched_at_once(client: httpx.Client) -> None:
    queries = [{"text": text, "k": 1} for text in ("north", "read")]
    answer = client.post("/v1/components/points/search/batch", json={"queries": queries})
    assert [ids(each) for each in answer.json()["answers"]] == [["c"], ["b"]]


def test_a_service_whose_embedder_cannot_be_imported_does_not_start(bench: Bench) -> None:
    tracks = CollectionSettings.model_validate({"dimension": 2, "embedder": "no_such:function"})
    bench.settings = bench.settings.model_copy(update={"collections": {"tracks": tracks}})
    with pytest.raises(EmbedderFunctionError, match="no_such cannot be imported"):
        create_app(bench.reader())


def test_a_reader_without_an_embedder_has_none(reader: Reloader) -> None:
    assert reader.embedders is None


@contextmanager
def writing(folder: Path, **keys: Any) -> Iterator[tuple[httpx.Client, Pipeline]]:
    """A service that takes writes to a collection that has an embedder."""
    settings = settings_in(folder)
    embedder = EmbedderSettings(function=f"{MODULE}:function", **keys)
    songs = settings.collections["songs"].model_copy(
        update={"embedder": embedder, "max_text_bytes": 20}
    )
    collections = {**settings.collections, "songs": songs}
    pipeline = Pipeline(settings.model_copy(update={"collections": collections}), folder)
    with closing(pipeline), serving(pipeline) as client:
        yield client, pipeline


def test_entries_that_are_written_with_a_text_alone_get_its_vector(
    function: Function, tmp_path: Path
) -> None:
    with writing(tmp_path) as (client, pipeline):

        def put(*entries: dict[str, Any]) -> httpx.Response:
            return client.put(ENTRIES, json={"entries": entries})

        given = {"id": "given", "vector": [7, 7], "text": "of its own"}
        answer = put({"id": "north", "text": "north"}, given, {"id": "lo", "text": "lo"})
        assert answer.status_code == 200, answer.text
        with pipeline.catalog.entries.snapshot("songs") as snapshot:
            [chunk] = snapshot.chunks()
        found = dict(zip(chunk.ids, chunk.vectors.tolist(), strict=True))
        assert (found["north"], found["given"], found["lo"]) == ([5, 5], [7, 7], [4, 0])
        assert function.calls == [["north", "lo"]]
        for entry, says in (
            (
                {"id": "x", "text": "low"},
                "entries.1.text: nothing was written: the embedder raised",
            ),
            ({"id": "x"}, "entries.1: 'x' has neither a vector nor a text"),
            ({"id": "x", "text": "long" * 6}, "text of more than 20 bytes of UTF-8"),
            ({"id": "good", "text": "twice"}, "id given more than once"),
        ):
            refused = put({"id": "good", "text": "lo"}, entry)
            assert refused.status_code == 422
            assert refused.json()["detail"].startswith(says)
        assert not {"long" * 6, "twice"} & {text for call in function.calls for text in call}
        assert client.get(f"{ENTRIES}/good").status_code == 404


def test_the_clients_write_texts_whose_vectors_the_reader_makes(
    function: Function, tmp_path: Path
) -> None:
    with writing(tmp_path) as (http, pipeline):
        address = str(http.base_url)

        async def write() -> None:
            async with AsyncClient(address) as client:
                await client.upsert("songs", ["lo"], texts=["lo"])

        asyncio.run(write())
        with Client(address) as client:
            client.upsert("songs", ["north"], texts=["north"], payloads=[{"tenant": "shop"}])
            with pytest.raises(InvalidRequestError, match="neither a vector nor a text"):
                client.upsert("songs", ["nothing"])
        with pipeline.catalog.entries.snapshot("songs") as snapshot:
            [chunk] = snapshot.chunks()
        found = dict(zip(chunk.ids, chunk.vectors.tolist(), strict=True))
    assert (found["lo"], found["north"]) == (VECTORS["lo"], VECTORS["north"])
    assert function.calls == [["lo"], ["north"]]


def test_a_repeat_whose_text_gets_no_vector_is_told_that_it_may_have_been_written_before(
    function: Function, tmp_path: Path
) -> None:
    with writing(tmp_path, timeout_seconds=0.05, query_seconds=0.05) as (client, _):
        said: list[str] = []
        for headers in ({}, {"idempotency-key": "again"}):
            entries = [{"id": "x", "text": "hangs"}]
            answer = client.put(ENTRIES, json={"entries": entries}, headers=headers)
            assert answer.status_code == 503, answer.text
            said.append(answer.json()["detail"])
        function.open.set()
    assert said[0].startswith("entries.0.text: nothing was written: the embedder took more than")
    assert said[1] == said[0] + (
        "; an earlier request under this Idempotency-Key may have written it"
    )


def test_the_same_write_of_a_text_is_known_where_its_vector_comes_out_otherwise(
    function: Function, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(tmp_path, cache_texts=1) as (client, _):

        def put(text: str, key: str = "k") -> httpx.Response:
            entries = [{"id": "north", "text": text}]
            return client.put(ENTRIES, json={"entries": entries}, headers={"idempotency-key": key})

        first = put("north").json()
        assert put("read", key="which-forgets-the-vector").status_code == 200
        monkeypatch.setitem(VECTORS, "north", [5.0, 5.000001])
        again = put("north")
        assert again.status_code == 200, again.text
        assert again.json() == {**first, "repeated": True}
        assert function.calls == [["north"], ["read"], ["north"]]
        assert put("lo").status_code == 422
