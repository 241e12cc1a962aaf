"""What an agent remembers, every other finds; what one forgets, nobody does."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import mcp_types as types
import numpy as np
import pytest
from fastapi import FastAPI
from mcp import Client

from indexrelay.schemas.session import HEADER
from indexrelay.schemas.settings import HttpSettings, Settings
from indexrelay.service.app import create_app
from indexrelay.service.mcp.api import Api, within
from indexrelay.service.mcp.server import mcp_server
from indexrelay.service.mcp.tools import TOOLS
from indexrelay.service.writer import EntryWriter
from indexrelay.testing import Pipeline
from tests.streams.polling import eventually

SETTINGS = Settings.model_validate(
    {
        "namespace": "test",
        "live": {"keys": ["k" * 32]},
        "collections": {
            "notes": {"dimension": 3, "live": True, "filterable": {"topic": "keyword"}},
        },
        "components": {"words": {"kind": "text_index", "from": "notes"}},
    }
)
LEARNED = {
    "text": "the ingest queue holds a stale lock",
    "payload": {"topic": "ingest"},
    "vector": [0.0, 1.0, 0.0],
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Two readers that serve one note."""
    folder: Path = tmp_path_factory.mktemp("writing")
    with closing(Pipeline(SETTINGS, folder)) as pipeline:
        with pipeline.producer.batch("notes") as batch:
            batch.upsert(["first"], np.array([[1, 0, 0]], np.float32), texts=["a first note"])
        pipeline.reader("here")
        pipeline.reader("there")
        pipeline.settle()
        yield pipeline


@pytest.fixture(scope="module")
def here(pipeline: Pipeline) -> Iterator[FastAPI]:
    """The service that is written to."""
    writer = EntryWriter(SETTINGS, catalog=pipeline.catalog, connection=pipeline.connection)
    with closing(writer):
        yield create_app(pipeline.reader("here"), HttpSettings(writes=True), writer=writer)


@pytest.fixture(scope="module")
def there(pipeline: Pipeline) -> FastAPI:
    """Another instance, which nobody writes to."""
    return create_app(pipeline.reader("there"))


def called(app: FastAPI, tool: str, **arguments: Any) -> types.CallToolResult:
    async def run() -> types.CallToolResult:
        api = Api(within(app))
        server = mcp_server(
            api_of=lambda _context: api, may_write=lambda _context: True, with_writes=True
        )
        async with Client(server) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(run())


def found(pipeline: Pipeline, app: FastAPI) -> list[Any]:
    """What an agent at that instance finds, once it has what was committed: that is sent after the
    answer to who wrote it."""
    committed = pipeline.catalog.collections.get("notes").generation
    answers: list[dict[str, Any]] = []

    def is_there() -> bool:
        pipeline.reader("there").step()
        answer = called(app, "search", component="words", text="stale lock")
        assert not answer.is_error, answer.content
        answers.append(answer.structured_content)
        return bool(answers[-1]["generations"]["notes"] == committed)

    eventually(is_there)
    return list(answers[-1]["hits"])


def test_what_one_agent_remembers_another_finds_at_another_instance(
    pipeline: Pipeline, here: FastAPI, there: FastAPI
) -> None:
    written = called(here, "remember", collection="notes", entries=[LEARNED])
    assert not written.is_error, written.content
    [entry_id] = written.structured_content["ids"]
    [hit] = found(pipeline, there)
    assert (hit["id"], hit["text"], hit["payload"]) == (
        entry_id,
        LEARNED["text"],
        LEARNED["payload"],
    )
    again = called(here, "remember", collection="notes", entries=[LEARNED])
    assert again.structured_content["ids"] == [entry_id], "the same content is the same entry"
    assert len(found(pipeline, there)) == 1
    gone = called(here, "forget", collection="notes", ids=[entry_id, "nowhere"])
    assert gone.structured_content["deletes"] == 1
    assert found(pipeline, there) == []


def test_an_entry_that_is_remembered_again_keeps_what_is_not_given_as_agents_are_told(
    pipeline: Pipeline, here: FastAPI, there: FastAPI
) -> None:
    called(here, "remember", collection="notes", entries=[{**LEARNED, "id": "again"}])
    later = {"id": "again", "text": "a stale lock, removed", "vector": LEARNED["vector"]}
    called(here, "remember", collection="notes", entries=[later])
    [hit] = found(pipeline, there)
    assert (hit["text"], hit["payload"]) == (later["text"], LEARNED["payload"])
    [told] = [tool.description for tool in TOOLS if tool.name == "remember"]
    assert "keeps a text or payload that is not" in told
    called(here, "forget", collection="notes", ids=["again"])


def test_a_session_that_one_agent_hands_to_another_is_found_at_once(
    here: FastAPI, there: FastAPI
) -> None:
    entry = {"text": "handed over at noon", "vector": [0.0, 0.0, 1.0], "id": "handed"}
    written = called(here, "remember", collection="notes", entries=[entry])
    session = written.structured_content["session"]
    asked = {"component": "words", "text": "handed over"}
    answer = called(there, "search", **asked, session=session)
    assert [hit["id"] for hit in answer.structured_content["hits"]] == ["handed"]
    strong = called(there, "search", **asked, consistency="strong")
    assert [hit["id"] for hit in strong.structured_content["hits"]] == ["handed"]
    refused = called(there, "search", **asked, session="made up")
    assert refused.is_error
    assert "this is no session token" in str(refused.content)


def test_an_agent_that_has_written_asks_with_its_session_ever_after(
    here: FastAPI,
) -> None:
    async def run() -> tuple[str, list[str]]:
        sent: list[str] = []

        async def asked(request: httpx.Request) -> httpx.Response:
            sent.append(request.headers.get(HEADER, ""))
            return await transport.handle_async_request(request)

        transport = within(here)
        api = Api(httpx.MockTransport(asked))
        entries = [{"id": "own", "text": "my own", "vector": [0.0, 1.0, 1.0]}]
        answer = await api.ask("PUT", "/v1/collections/notes/entries", {"entries": entries})
        await api.ask("POST", "/v1/components/words/search", {"text": "my own"})
        return answer["session"], sent

    session, sent = asyncio.run(run())
    assert sent == ["", session]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"text": "no vector"}, "entries.1.vector"),
        ({"vector": [1, 0]}, "vector of 2 numbers, where 3 are wanted"),
        ({"vector": [0, 0, 0]}, "zero"),
        ({"vector": [1, 0, 0], "payload": {"topic": 5}}, "topic"),
        ({"vector": [1, 0, 0], "payload": "words"}, "entries.1.payload: "),
        ({"vector": [1, 0, 0], "id": "a\nb"}, "entries.1.id: "),
        ({"vector": [1, 0, 0], "text": ""}, "entries.1.text: "),
        ({"vector": [1, 0, 0], "title": "words"}, "entries.1.title: "),
    ],
)
def test_what_cannot_be_remembered_is_a_tool_error_and_nothing_is_written(
    pipeline: Pipeline, here: FastAPI, entry: dict[str, Any], said: str
) -> None:
    before = pipeline.catalog.collections.log("notes", ()).generation
    refused = called(here, "remember", collection="notes", entries=[LEARNED, entry])
    assert refused.is_error
    assert said in str(refused.content[0])
    assert pipeline.catalog.collections.log("notes", ()).generation == before


def test_where_nothing_may_be_written_a_call_says_so(there: FastAPI) -> None:
    refused = called(there, "remember", collection="notes", entries=[LEARNED])
    assert refused.is_error
    assert "http.writes = true" in str(refused.content)
