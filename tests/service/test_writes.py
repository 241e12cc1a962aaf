"""Writes over HTTP: what is committed, what is refused, what is waited for, and by whom."""

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from indexrelay.producers import GroupCommit, GroupFullError
from indexrelay.schemas.session import HEADER, SessionToken
from indexrelay.schemas.settings import CatalogSettings, HttpSettings, Settings
from indexrelay.service import Client
from indexrelay.service.app import create_app
from indexrelay.service.tokens import digest_of, new_token
from indexrelay.service.writer import EntryWriter
from indexrelay.testing import Pipeline
from tests.service.app_server import running

ENTRIES = "/v1/collections/songs/entries"
RAW = {"content-type": "application/octet-stream"}
PLAIN = {"content-type": "application/json"}
TOKENS = {name: new_token() for name in ("reads", "writes", "admin", "shop", "bank", "looks")}
SCOPES: dict[str, dict[str, Any]] = {
    "reads": {"scope": "read"},
    "writes": {"scope": "write"},
    "admin": {"scope": "admin"},
    "shop": {"scope": "write", "filter": {"tenant": "shop"}},
    "bank": {"scope": "write", "filter": {"tenant": "bank"}},
    "looks": {"scope": "read", "filter": {"tenant": "shop"}},
}


def settings_in(folder: Path, *, tokens: bool = False, **http: Any) -> Settings:
    known = {name: {"sha256": digest_of(TOKENS[name]), **each} for name, each in SCOPES.items()}
    return Settings.model_validate(
        {
            "namespace": "writes",
            "data_dir": folder,
            "reader": {"start_spread_seconds": 0, "block_seconds": 0.1},
            "live": {"keys": ["k" * 32]},
            "http": {"writes": True, "tokens": known if tokens else {}, **http},
            "collections": {
                "songs": {
                    "dimension": 2,
                    "metric": "l2",
                    "live": True,
                    "filterable": {"tenant": "keyword"},
                },
                "bare": {"dimension": 2},
                "files": {"dimension": 2, "source": {"kind": "folder", "path": folder}},
            },
            "components": {"similar": {"kind": "vector_index", "from": "songs", "index": "Flat"}},
        }
    )


@contextmanager
def serving(pipeline: Pipeline) -> Iterator[httpx.Client]:
    """A service over one release of two songs, that its reader has loaded."""
    with pipeline.producer.batch("songs") as batch:
        payloads = [{"tenant": "shop"}, {"tenant": "bank"}]
        batch.upsert(["shop-1", "bank-1"], [[0, 0], [1, 1]], payloads=payloads)
    pipeline.rebuild()
    reader = pipeline.reader("web")
    reader.step()
    http = pipeline.settings.http
    writer = EntryWriter(
        pipeline.settings,
        max_waiting=http.max_waiting_writes,
        catalog=pipeline.catalog,
        connection=pipeline.connection,
    )
    with running(create_app(reader, http, writer=writer)) as client:
        yield client


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("writes")
    pipeline = Pipeline(settings_in(folder, max_waiting_writes=5), folder)
    yield pipeline
    pipeline.close()


@pytest.fixture(scope="module")
def client(pipeline: Pipeline) -> Iterator[httpx.Client]:
    with serving(pipeline) as client:
        yield client


def upserts(*ids: str, vector: Any = (3, 3), **more: Any) -> dict[str, Any]:
    return {"entries": [{"id": each, "vector": list(vector), **more} for each in ids]}


def written(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_what_was_answered_is_read_and_found(client: httpx.Client, pipeline: Pipeline) -> None:
    before = pipeline.catalog.collections.get("songs").generation
    more = {"text": "a song", "payload": {"tenant": "shop", "year": 1999}}
    body = {**upserts("new/1 ü", vector=(9, 9), **more), "wait": "visible:1"}
    put = client.put(ENTRIES, json=body)
    answer = written(put)
    epoch = pipeline.catalog.collections.get("songs").epoch
    session = str(SessionToken.at("songs", epoch, before + 1))
    assert put.headers[HEADER] == session
    assert answer == {
        "session": session,
        "collection": "songs",
        "generation": before + 1,
        "upserts": 1,
        "deletes": 0,
        "repeated": False,
        "wait": "visible:1",
        "reached": True,
        "reason": None,
    }
    found = client.post("/v1/components/similar/search", json={"vector": [9, 9], "k": 1}).json()
    assert [(hit["id"], hit["payload"]) for hit in found["hits"]] == [("new/1 ü", more["payload"])]
    stored = written(client.get(f"{ENTRIES}/new/1 ü"))
    head = {"collection": "songs", "generation": before + 1, "session": session}
    assert stored == {**head, "id": "new/1 ü", **more}


def test_whoever_shows_the_session_of_a_write_finds_it_at_once(client: httpx.Client) -> None:
    for number in range(5):
        wrote = client.put(ENTRIES, json=upserts(f"own-{number}", vector=(50, number)))
        session = {HEADER: wrote.headers[HEADER]}
        assert session[HEADER] == wrote.json()["session"]
        query = {"vector": [50, number], "k": 1}
        found = client.post("/v1/components/similar/search", json=query, headers=session).json()
        assert [hit["id"] for hit in found["hits"]] == [f"own-{number}"]
        read = client.get(f"{ENTRIES}/own-{number}")
        assert read.headers[HEADER] == read.json()["session"]
        assert read.json()["generation"] >= wrote.json()["generation"]


def test_a_patch_sets_what_it_gives_and_takes_away_what_is_null(client: httpx.Client) -> None:
    more = {"text": "before", "payload": {"tenant": "shop"}}
    written(client.put(ENTRIES, json=upserts("patched", **more)))
    entry = f"{ENTRIES}/patched"

    def patched(**given: Any) -> tuple[Any, Any]:
        assert written(client.patch(entry, json=given))["upserts"] == 1
        stored = written(client.get(entry))
        return stored["text"], stored["payload"]

    assert patched(text="after") == ("after", {"tenant": "shop"})
    assert patched(payload=[1, None]) == ("after", [1, None])
    assert patched(text=None, payload={}) == (None, {})
    assert patched(payload=None) == (None, None)


def test_a_delete_counts_what_was_there(client: httpx.Client) -> None:
    written(client.put(ENTRIES, json=upserts("gone", "delete")))
    answer = written(client.post(f"{ENTRIES}/delete", json={"ids": ["gone", "nobody"]}))
    assert (answer["deletes"], answer["upserts"]) == (1, 0)
    assert client.get(f"{ENTRIES}/gone").status_code == 404
    assert written(client.get(f"{ENTRIES}/delete"))["id"] == "delete"


def test_float32_values_behind_a_line_of_json_are_the_vectors(
    client: httpx.Client, pipeline: Pipeline
) -> None:
    line = json.dumps({"entries": [{"id": "raw-1", "text": "a\nb"}, {"id": "raw-2"}]}).encode()
    vectors = np.array([[1.5, 2.5], [-3, 1e-3]], dtype="<f4")
    answer = written(client.put(ENTRIES, content=line + b"\n" + vectors.tobytes(), headers=RAW))
    assert answer["upserts"] == 2
    with pipeline.catalog.entries.snapshot("songs") as snapshot:
        [chunk] = snapshot.chunks()
    rows = [chunk.ids.index(each) for each in ("raw-1", "raw-2")]
    assert np.array_equal(chunk.vectors[rows], vectors)
    assert chunk.texts[rows[0]] == "a\nb"


def test_writers_at_the_same_time_lose_nothing_and_read_what_they_wrote(
    client: httpx.Client, pipeline: Pipeline
) -> None:
    before = pipeline.catalog.collections.get("songs").generation

    def write(writer: int) -> list[int]:
        generations = []
        for number in range(4):
            name = f"writer-{writer}-{number}"
            body = {**upserts(name, payload=[writer, number]), "wait": "visible:1"}
            answer = written(client.put(ENTRIES, json=body))
            assert answer["reached"]
            stored = written(client.get(f"{ENTRIES}/{name}"))
            assert stored["payload"] == [writer, number]
            assert stored["generation"] >= answer["generation"]
            generations.append(answer["generation"])
        return generations

    with ThreadPoolExecutor(5) as threads:
        of_each = list(threads.map(write, range(5)))
    assert all(each == sorted(each) for each in of_each)
    together = sorted(generation for each in of_each for generation in each)
    assert together == list(range(before + 1, before + 21))
    ids = [f"writer-{writer}-{number}" for writer in range(5) for number in range(4)]
    found = client.post("/v1/components/similar/entries", json={"ids": ids}).json()["entries"]
    assert [entry["id"] for entry in found] == ids


NAN = b'{"entries":[{"id":"a"}]}\n' + np.array([np.nan, 0], "<f4").tobytes()
SHORT = b'{"entries":[{"id":"a"}]}\n' + b"\0" * 4
BOTH = b'{"entries":[{"id":"a","vector":[1,2]}]}\n' + b"\0" * 8
TWICE = b'{"entries":[{"id":"a","vector":[1,2],"payload":{"x":1,"x":2}}]}'
REFUSED: list[tuple[str, str, Any, int, str]] = [
    (
        "PUT",
        "",
        upserts("a", vector=(1, 2, 3)),
        422,
        "vector of 3 numbers, where 2 are wanted: row",
    ),
    ("PUT", "", upserts("a", "b", "a"), 422, "id given more than once: row 2 ('a')"),
    ("PUT", "", upserts("a", "no\0"), 422, "id that holds a NUL character: row 1 ('no"),
    (
        "PUT",
        "",
        upserts("a", vector=("x", 1)),
        422,
        "entries.0.vector.0: Input should be a valid nu",
    ),
    (
        "PUT",
        "",
        upserts("a", vector=(1e39, 1)),
        422,
        "entries.0.vector.0: Input should be less than",
    ),
    ("PUT", "", b'{"entries":[{"id":"a","vector":[NaN,1]}]}', 422, "the body is no JSON"),
    ("PUT", "", NAN, 422, "the body holds a NaN"),
    ("PUT", "", SHORT, 422, "vector of 1 numbers, where 2 are wanted: row 0 ('a')"),
    ("PUT", "", BOTH, 422, "entries.0.vector: the vectors of this body are the float32 values"),
    ("PUT", "", b"{}", 422, "entries: Field required"),
    ("PUT", "", b'{"entries":[]}', 422, "entries: List should have at least 1"),
    ("PUT", "", b'{"entries":[{"id":"a"}]}', 422, "entries.0.vector: 'a' has none"),
    ("PUT", "", b'{"entries"', 422, "the body is no JSON"),
    ("PUT", "", TWICE, 422, "the key 'x' is given twice"),
    (
        "PUT",
        "",
        {**upserts("a"), "wat": 1},
        422,
        "unknown: 'wat'; there are wait, wait_seconds, en",
    ),
    ("PUT", "", upserts("a", wat=1), 422, "entries.0.wat: Extra inputs are not permitted"),
    ("PUT", "", {**upserts("a"), "wait": "visible:0"}, 422, "wait: String should match"),
    ("PUT", "", {**upserts("a"), "wait_seconds": 61}, 422, "wait_seconds: Input should be less"),
    ("PUT", "", upserts("a", payload={"tenant": 3}), 422, "payload whose 'tenant' is not what"),
    ("PUT", "?wait=durable", upserts("a"), 422, "the address has no options"),
    ("POST", "/delete", {"ids": []}, 422, "ids: List should have at least 1"),
    ("POST", "/delete", {"ids": [1]}, 422, "ids.0: Input should be a valid string"),
    ("PATCH", "/shop-1", {}, 422, "give payload, text or both"),
    ("PATCH", "/shop-1", {"text": 3}, 422, "text: Input should be a valid string"),
    ("PATCH", "/nobody", {"text": "a"}, 404, "'songs' holds no entry 'nobody'"),
    ("PATCH", "/nobody", {"text": None}, 404, "'songs' holds no entry 'nobody'"),
    ("GET", "/nobody", None, 404, "'songs' holds no entry 'nobody'"),
    ("GET", "/no%00", None, 422, "id that holds a NUL character"),
    ("GET", "/", None, 422, "id that is empty"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "says"), REFUSED)
def test_what_cannot_be_written_is_refused_by_field_and_entry(
    client: httpx.Client,
    pipeline: Pipeline,
    method: str,
    path: str,
    body: Any,
    status: int,
    says: str,
) -> None:
    before = pipeline.catalog.collections.get("songs").generation
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    raw = content is not None and b"\n" in content
    answer = client.request(method, ENTRIES + path, content=content, headers=RAW if raw else PLAIN)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]
    # To take something away from an entry that is not there is a commit, as every batch is.
    taken = method == "PATCH" and body == {"text": None}
    assert pipeline.catalog.collections.get("songs").generation == before + taken


@pytest.mark.parametrize(
    ("collection", "status", "says"),
    [
        ("nothing", 404, "the settings declare no collection 'nothing'"),
        ("files", 422, "of 'files' come from its folder"),
    ],
)
def test_only_collections_that_the_catalog_keeps_are_written(
    client: httpx.Client, collection: str, status: int, says: str
) -> None:
    path = f"/v1/collections/{collection}/entries"
    for answer in (
        client.put(path, json=upserts("a")),
        client.post(f"{path}/delete", json={"ids": ["a"]}),
        client.get(f"{path}/a"),
    ):
        assert answer.status_code == status
        assert says in answer.json()["detail"]


def test_a_collection_is_made_with_its_first_write(client: httpx.Client) -> None:
    assert client.get("/v1/collections/bare/entries/a").status_code == 404
    body = {**upserts("a"), "wait": "visible:1", "wait_seconds": 60}
    late = written(client.put("/v1/collections/bare/entries", json=body), 202)
    assert (late["generation"], late["reason"]) == (1, "this reader serves nothing of it")


def test_a_body_of_another_type_is_refused(client: httpx.Client) -> None:
    assert (
        client.put(ENTRIES, content=b"a,b", headers={"content-type": "text/csv"}).status_code == 415
    )
    assert client.patch(f"{ENTRIES}/shop-1", content=b"", headers=RAW).status_code == 415


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(client: httpx.Client) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
        head = f"PUT {ENTRIES} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000000\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_the_same_write_under_the_same_key_is_written_once(client: httpx.Client) -> None:
    def put(key: str, *ids: str, **more: Any) -> httpx.Response:
        return client.put(ENTRIES, json={**upserts(*ids), **more}, headers={"idempotency-key": key})

    first = written(put('"mine"', "keyed"))
    again = written(put("mine", "keyed", wait="visible:1"))
    assert (again["generation"], again["repeated"]) == (first["generation"], True)
    other = put("mine", "keyed-2")
    assert other.status_code == 422
    assert "this Idempotency-Key was used before for another write" in other.json()["detail"]
    assert client.get(f"{ENTRIES}/keyed-2").status_code == 404
    wrong = put('"', "keyed")
    assert (wrong.status_code, "Idempotency-Key: a text" in wrong.json()["detail"]) == (422, True)


def test_a_wait_that_runs_out_says_that_the_write_stands(
    client: httpx.Client, pipeline: Pipeline
) -> None:
    def put(wait: str, name: str) -> httpx.Response:
        body = {**upserts(name), "wait": wait, "wait_seconds": 0}
        return client.put(ENTRIES, json=body, headers={"idempotency-key": name})

    for wait, why in (
        ("visible:3", "1 process(es) alive, 3 asked for"),
        ("released", "similar at"),
    ):
        late = written(put(wait, wait), 202)
        assert (late["wait"], late["reached"]) == (wait, False)
        assert "is committed, but not served" in late["reason"]
        assert why in late["reason"]
        assert written(client.get(f"{ENTRIES}/{wait}"))["id"] == wait


def test_released_is_reached_when_readers_serve_a_release_with_it(tmp_path: Path) -> None:
    pipeline = Pipeline(settings_in(tmp_path, max_waiting_writes=1), tmp_path)
    try:
        with serving(pipeline) as client:
            body = {**upserts("kept"), "wait": "released", "wait_seconds": 30}
            answers: list[httpx.Response] = []
            asking = threading.Thread(
                target=lambda: answers.append(client.put(ENTRIES, json=body, timeout=40))
            )
            asking.start()
            while client.get(f"{ENTRIES}/kept").status_code != 200:
                pass
            late = written(client.put(ENTRIES, json={**body, **upserts("second")}), 202)
            assert late["reason"] == "1 writes wait already"
            assert not answers
            pipeline.rebuild()
            asking.join()
            assert written(answers[0])["reached"] is True
    finally:
        pipeline.close()


def test_where_too_many_wait_for_a_commit_the_next_is_refused(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(_self: GroupCommit, _pending: Any) -> Any:
        raise GroupFullError(5, closed=False)

    monkeypatch.setattr(GroupCommit, "submit", submit)
    refused = client.put(ENTRIES, json=upserts("a"))
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert "5 writes to commit" in refused.json()["detail"]


def test_a_catalog_that_fails_leaves_open_whether_it_was_written(
    client: httpx.Client, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.catalog.entries, "commit_each", lambda _: 1 / 0)
    failed = client.put(ENTRIES, json=upserts("a"))
    assert failed.status_code == 503
    assert failed.headers["retry-after"] == "1"
    assert "send it again with the same Idempotency-Key" in failed.json()["detail"]


def test_the_example_of_the_page_runs(client: httpx.Client) -> None:
    page = (Path(__file__).parents[2] / "docs" / "live.md").read_text(encoding="utf-8")
    section = page.partition("\n## Writing over HTTP\n")[2].partition("\n## ")[0]
    [example] = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    asked: list[str] = []

    def made(address: str, *, token: str | None) -> Client:
        asked.append(address)
        return Client(str(client.base_url), token=token)

    before = written(client.put(ENTRIES, json=upserts("before")))["generation"]
    names = {"Client": made, "token": None, "vectors": [[5.0, 5.0]]}
    exec(example.replace('"tracks"', '"songs"'), names)  # noqa: S102 - of our own page
    assert asked == ["http://localhost:8001"]
    after = written(client.put(ENTRIES, json=upserts("after")))["generation"]
    assert after - before == 1 + example.count('"tracks"') - example.count("stored")


def test_where_nobody_can_see_who_serves_it_the_write_stands(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexrelay.producers.served.ServedWait.look", lambda _: 1 / 0)
    late = written(client.put(ENTRIES, json={**upserts("a"), "wait": "released"}), 202)
    assert late["reason"] == "who serves it cannot be seen: ZeroDivisionError"


def test_a_wait_ends_in_time_while_the_looks_of_others_hang(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, goes_on = threading.Semaphore(0), threading.Event()

    def look(_: Any) -> None:
        hangs.release()
        goes_on.wait(60)

    monkeypatch.setattr("indexrelay.producers.served.ServedWait.look", look)
    monkeypatch.setattr("indexrelay.service.waits._LATE_SECONDS", 0.01)

    def put(name: str) -> httpx.Response:
        body = {**upserts(name), "wait": "released", "wait_seconds": 0}
        return client.put(ENTRIES, json=body, timeout=60)

    with ThreadPoolExecutor() as pool:
        try:
            others = [pool.submit(put, name) for name in ("look-1", "look-2")]
            assert all(hangs.acquire(timeout=30) for _ in others)
            late = written(put("look-3"), 202)
        finally:
            goes_on.set()
            monkeypatch.undo()
        for each in others:
            written(each.result(), 202)
    assert late["reason"] == "who serves it was not seen in time: looks at presence take long"


def test_a_catalog_that_hangs_keeps_no_search_waiting(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, goes_on = threading.Semaphore(0), threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        hangs.release()
        goes_on.wait(60)
        raise OSError("the database is gone")

    reader = pipeline.reader("one-thread")
    reader.step()
    writer = EntryWriter(
        pipeline.settings, catalog=pipeline.catalog, connection=pipeline.connection
    )
    limits = HttpSettings(searches=1, writes=True)
    with (
        running(create_app(reader, limits, writer=writer)) as client,
        ThreadPoolExecutor() as pool,
    ):
        monkeypatch.setattr(pipeline.catalog.entries, "get", hang)
        monkeypatch.setattr(pipeline.catalog.collections, "declare", hang)
        try:
            asked = [
                pool.submit(client.get, f"{ENTRIES}/a", timeout=60),
                pool.submit(client.put, ENTRIES, json=upserts("a"), timeout=60),
            ]
            assert all(hangs.acquire(timeout=30) for _ in asked)
            found = client.post("/v1/components/similar/search", json={"vector": [0, 0]})
        finally:
            goes_on.set()
        assert found.status_code == 200
        for each in asked:
            failed = each.result()
            assert failed.status_code == 503
            assert "nothing was written" in failed.json()["detail"]


def test_writes_are_counted_by_collection_operation_and_outcome(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted() -> dict[str, float]:
        page = client.get("/metrics").text
        lines = re.findall(r"^indexrelay_writes_total\{(.*)\} (.*)$", page, re.MULTILINE)
        found = {re.sub(r"\w+=|\"", "", labels): float(value) for labels, value in lines}
        durable = re.findall(
            r'^indexrelay_write_seconds_count\{collection="songs"\} (.*)$', page, re.MULTILINE
        )
        return {**found, "durable": float(durable[0])}

    for _ in range(2):
        client.put(ENTRIES, json=upserts("counted"), headers={"idempotency-key": "counted"})
    before = counted()
    client.put(ENTRIES, json=upserts("counted"), headers={"idempotency-key": "counted"})
    client.put(ENTRIES, json=upserts("counted"))
    client.put(ENTRIES, json={})
    client.put("/v1/collections/nothing/entries", json=upserts("a"))
    client.patch(f"{ENTRIES}/counted", json={"text": "a"})
    assert client.patch(f"{ENTRIES}/nobody", json={"text": None}).status_code == 404
    client.post(f"{ENTRIES}/delete", json={"ids": ["counted"]})
    monkeypatch.setattr(GroupCommit, "submit", lambda *_: 1 / 0)
    client.put(ENTRIES, json=upserts("counted"))
    after = counted()
    assert {
        name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name)
    } == {
        "songs,upsert,repeated": 1,
        "songs,upsert,written": 1,
        "songs,upsert,refused": 1,
        "songs,upsert,failed": 1,
        "songs,patch,refused": 1,
        "songs,patch,written": 1,
        "songs,delete,written": 1,
        ",upsert,refused": 1,
        "durable": 3,
    }


def test_the_description_has_the_writes_where_they_are_allowed(
    client: httpx.Client, pipeline: Pipeline
) -> None:
    described = client.get("/openapi.json").json()
    paths = {
        f"{method} {path.removeprefix('/v1/collections/{collection}/')}"
        for path, operations in described["paths"].items()
        for method in operations
        if "/collections/" in path
    }
    assert paths == {"put entries", "post entries/delete", "patch entries/{id}", "get entries/{id}"}
    schemas = described["components"]["schemas"]
    for reference in json.dumps(described).split("#/components/schemas/")[1:]:
        assert reference.partition('"')[0] in schemas


def test_without_the_setting_nothing_is_written_and_no_catalog_is_opened(tmp_path: Path) -> None:
    pipeline = Pipeline(settings_in(tmp_path, writes=False), tmp_path)
    try:
        opened: list[str] = []
        pipeline.settings.__dict__["catalog_url"] = property(lambda _: opened.append("it"))
        reader = pipeline.reader("web")
        with running(create_app(reader, pipeline.settings.http)) as client:
            assert client.put(ENTRIES, json=upserts("a")).status_code == 404
            assert client.get(f"{ENTRIES}/a").status_code == 404
            described = client.get("/openapi.json").text
            assert "/v1/collections/" not in described
            assert "UpsertRequest" not in described
        assert not opened
    finally:
        pipeline.close()


FORKING = """
import os, sys
from indexrelay.schemas.settings import Settings
from indexrelay.service.writer import EntryWriter

writer = EntryWriter(Settings.model_validate_json(sys.argv[1]))

def write(name):
    group = writer.open().group
    prepared = group.prepared("bare", None, lambda batch: batch.upsert([name], [[1.0, 2.0]]))
    return group.submit(prepared).result(30).generation

assert write("parent") == 1
child = os.fork()
if not child:
    os._exit(write("child"))
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 2
assert write("parent again") == 3
writer.close()
"""


def test_a_forked_worker_writes_with_a_catalog_and_threads_of_its_own(tmp_path: Path) -> None:
    given = {"data_dir": str(tmp_path), "collections": {"bare": {"dimension": 2}}}
    program = [sys.executable, "-W", "ignore", "-c", FORKING, json.dumps(given)]
    done = subprocess.run(program, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("guarded")
    pipeline = Pipeline(settings_in(folder, tokens=True), folder)
    try:
        with serving(pipeline) as client:
            yield client
    finally:
        pipeline.close()


def shown(name: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {TOKENS[name]}", **more}


@pytest.mark.parametrize("name", ["reads", "looks"])
def test_a_token_for_reading_reads_entries_and_writes_none(
    guarded: httpx.Client, name: str
) -> None:
    for refused in (
        guarded.put(ENTRIES, json=upserts("a"), headers=shown(name)),
        guarded.post(f"{ENTRIES}/delete", json={"ids": ["shop-1"]}, headers=shown(name)),
        guarded.patch(f"{ENTRIES}/shop-1", json={"text": "a"}, headers=shown(name)),
    ):
        assert refused.status_code == 403
        assert 'scope="write"' in refused.headers["www-authenticate"]
    assert guarded.get(f"{ENTRIES}/shop-1", headers=shown(name)).status_code == 200


def test_a_token_for_writing_writes_and_retries_nothing(guarded: httpx.Client) -> None:
    for name in ("writes", "admin"):
        written(guarded.put(ENTRIES, json=upserts(f"of-{name}"), headers=shown(name)))
    assert guarded.post("/v1/retry", headers=shown("writes")).status_code == 403


def test_a_tenant_writes_what_its_filter_matches_and_nothing_else(guarded: httpx.Client) -> None:
    mine, theirs = {"tenant": "shop"}, {"tenant": "bank"}

    def put(*ids: str, **more: Any) -> httpx.Response:
        return guarded.put(ENTRIES, json=upserts(*ids, **more), headers=shown("shop"))

    written(put("mine", payload=mine))
    for answer, status, says in (
        (put("bank-1", payload=mine), 403, "belong to others"),
        (put("mine", "bank-1", payload=mine), 403, "belong to others: choose other ids: 'bank-1'"),
        (put("mine", payload=theirs), 422, "filter of this writer does not match"),
        (put("new", payload=theirs), 422, "filter of this writer does not match"),
        (put("new"), 422, "filter of this writer does not match"),
    ):
        assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text
    written(put("mine"))  # its payload stays


def test_what_is_another_tenants_is_not_there_to_patch_delete_or_get(guarded: httpx.Client) -> None:
    def ask(name: str, method: str, path: str, body: Any = None) -> httpx.Response:
        return guarded.request(method, f"{ENTRIES}{path}", json=body, headers=shown(name))

    before = written(ask("bank", "GET", "/bank-1"))
    known, unknown = (
        [
            ask("shop", "GET", f"/{entry}"),
            ask("shop", "PATCH", f"/{entry}", {"text": "a"}),
            ask("shop", "PATCH", f"/{entry}", {"text": None}),
            ask("shop", "PATCH", f"/{entry}", {"payload": None}),
            ask("shop", "PATCH", f"/{entry}", {"payload": {"tenant": "shop"}}),
        ]
        for entry in ("bank-1", "nobody")
    )
    assert [each.status_code for each in known] == [404] * 5
    hidden = [each.json()["detail"].replace("bank-1", "nobody") for each in known]
    assert hidden == [each.json()["detail"] for each in unknown]
    deleted = written(ask("shop", "POST", "/delete", {"ids": ["bank-1", "nobody"]}))
    assert deleted["deletes"] == 0
    given_away = ask("shop", "PATCH", "/shop-1", {"payload": {"tenant": "bank"}})
    assert given_away.status_code == 422
    after = written(ask("bank", "GET", "/bank-1"))
    assert (after["payload"], after["text"]) == (before["payload"], before["text"])


def test_a_tenant_learns_no_names_from_a_wait_and_none_of_collections(
    guarded: httpx.Client,
) -> None:
    body = {**upserts("mine", payload={"tenant": "shop"}), "wait": "visible:3", "wait_seconds": 0}
    late = written(guarded.put(ENTRIES, json=body, headers=shown("shop")), 202)
    assert late["reason"] == "not visible:3 within 0 s"
    missing = guarded.put("/v1/collections/song/entries", json=body, headers=shown("shop"))
    assert missing.json()["detail"] == "there is no collection 'song'"
    undeclared = guarded.put("/v1/collections/bare/entries", json=body, headers=shown("shop"))
    assert undeclared.status_code == 422
    assert "filter.tenant" in undeclared.json()["detail"]


def test_a_key_is_the_callers_own(guarded: httpx.Client) -> None:
    for name in ("shop", "bank"):
        body = upserts(f"{name}-keyed", payload={"tenant": name})
        headers = shown(name, **{"idempotency-key": "one"})
        assert written(guarded.put(ENTRIES, json=body, headers=headers))["repeated"] is False


def test_a_service_makes_no_catalog_where_there_are_releases_and_the_url_is_wrong(
    tmp_path: Path,
) -> None:
    with closing(Pipeline(settings_in(tmp_path), tmp_path)) as pipeline:
        with pipeline.producer.batch("songs") as batch:
            batch.upsert(["a"], [[0, 0]])
        pipeline.rebuild()
        elsewhere = tmp_path / "elsewhere.db"
        settings = pipeline.settings.model_copy(
            update={"catalog": CatalogSettings(url=f"sqlite:///{elsewhere}")}
        )
        writer = EntryWriter(settings)
        app = create_app(pipeline.reader("web"), pipeline.settings.http, writer=writer)
        with running(app) as client:
            answer = client.put(ENTRIES, json={"entries": [{"id": "b", "vector": [1, 1]}]})
            stored = client.get(f"{ENTRIES}/a")
        for refused in (answer, stored):
            assert refused.status_code == 503
            assert "no catalog where catalog.url says" in refused.json()["detail"]
        assert not elsewhere.exists()
