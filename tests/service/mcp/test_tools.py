"""What an agent is told by each tool, and what it is told where it asks in the wrong way."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import mcp_types as types
import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator
from mcp import Client, MCPError

from indexrelay.service.client import ReaderUnreachableError
from indexrelay.service.mcp.api import Api, within
from indexrelay.service.mcp.server import mcp_server
from indexrelay.service.mcp.tools import MAX_HIT_TEXT, TOOLS
from tests.service.mcp.conftest import TEXTS

T = TypeVar("T")
Asking = Callable[[Client], Awaitable[T]]


def asked(app: FastAPI, asking: Asking[T], *, with_writes: bool = False) -> T:
    """What comes of asking by the client of the SDK, without a network."""

    async def run() -> T:
        api = Api(within(app))
        server = mcp_server(
            api_of=lambda _context: api, may_write=lambda _context: True, with_writes=with_writes
        )
        async with Client(server) as client:
            return await asking(client)

    return asyncio.run(run())


def called(app: FastAPI, tool: str, **arguments: Any) -> types.CallToolResult:
    return asked(app, lambda client: client.call_tool(tool, arguments))


def found(app: FastAPI, tool: str, **arguments: Any) -> Any:
    result = called(app, tool, **arguments)
    [content] = result.content
    assert isinstance(content, types.TextContent)
    assert not result.is_error, content.text
    assert json.loads(content.text) == result.structured_content
    return result.structured_content


def refused(app: FastAPI, tool: str, **arguments: Any) -> str:
    """The sentence of a call that is refused in a way that a model reads."""
    result = called(app, tool, **arguments)
    [content] = result.content
    assert isinstance(content, types.TextContent)
    assert result.is_error, content.text
    assert result.structured_content is None
    return content.text


def test_a_search_by_text_gives_hits_with_payload_and_the_beginning_of_their_text(
    app: FastAPI,
) -> None:
    [hit] = found(app, "search", component="words", text="how long does a refund take?", k=1)[
        "hits"
    ]
    assert (hit["id"], hit["payload"], hit["text"]) == (
        "refund",
        {"topic": "billing"},
        TEXTS["refund"][0],
    )
    [hit] = found(app, "search", component="words", text="login")["hits"]
    assert hit["text"].startswith("a login lasts very")
    assert hit["text"].endswith(f"… (of {len(TEXTS['long'][0]):,} characters)")
    assert len(hit["text"]) < MAX_HIT_TEXT + 50
    [hit] = found(app, "search", component="words", text="login", texts=False)["hits"]
    assert "text" not in hit


def test_a_search_takes_an_entry_a_vector_and_a_filter(app: FastAPI) -> None:
    near = found(app, "search", component="near", id="refund", k=2)["hits"]
    assert {hit["id"] for hit in near} == {"invoice", "long"}
    [hit] = found(app, "search", component="near", vector=[0, 0, 1], k=1)["hits"]
    assert hit["id"] == "long"
    topics = found(app, "search", component="near", id="long", filter={"topic": "access"})
    assert topics["hits"] == []


def test_get_lists_the_ids_that_are_not_there(app: FastAPI) -> None:
    answer = found(app, "get", component="words", ids=["refund", "nowhere", "a\nb"])
    assert [each["id"] for each in answer["entries"]] == ["refund"]
    assert answer["entries"][0]["text"] == TEXTS["refund"][0]
    assert answer["missing"] == ["nowhere", "a\nb"]


def test_status_lists_collections_with_what_each_can_be_asked(app: FastAPI) -> None:
    answer = found(app, "status")
    assert (answer["well"], answer["problems"]) == (True, [])
    notes = answer["collections"]["notes"]
    assert (notes["dimension"], notes["fields"]) == (3, {"topic": "keyword"})
    assert notes["components"]["words"]["answers"] == ["text"]
    assert notes["components"]["words"]["entries"] == len(TEXTS)
    assert found(app, "status", collection="notes") == answer
    assert "there is notes" in refused(app, "status", collection="nowhere")


def test_explain_says_how_a_search_is_answered(app: FastAPI) -> None:
    answer = found(app, "explain", component="near", id="refund", filter={"topic": "billing"})
    assert answer["explanation"]["matches"] == 1, "without itself"
    assert [set(hit) for hit in answer["hits"]] == [{"id", "score"}]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"text": "refund", "k": 10**6}, "k: "),
        ({"text": "refund", "k": 0}, "k: "),
        ({"text": "refund", "k": "ten"}, "k: "),
        ({"text": "refund", "k": True}, "k: "),
        ({"text": "x" * 10_001}, "text: "),
        ({"text": "refund", "filter": {"colour": "red"}}, "filter.colour: "),
        ({"text": "refund", "filter": {"topic": {"$near": 1}}}, "$near"),
        ({"text": "refund", "filter": "topic = billing"}, "filter: "),
        ({"text": "refund", "id": "refund"}, "exactly one of vector, id and text"),
        ({}, "exactly one of vector, id and text"),
        ({"id": "a\nb"}, "this component answers a text"),
        ({"text": "refund", "without": ["x"] * 101}, "without: "),
        ({"text": "refund", "limit": 3}, "unknown: 'limit'"),
        ({"text": "refund", "component": "nowhere"}, "there is near, words"),
        ({"text": "refund", "component": "../state"}, "component: "),
        ({"text": "refund", "component": "words/entries"}, "component: "),
        ({"text": "refund", "component": "near"}, "this component answers a vector"),
        ({"component": "near", "vector": [1, 2]}, "the shape (3,)"),
        ({"component": "near", "vector": ["one"]}, "vector.0: "),
        ({"component": "near", "id": "a\nb"}, "no entry"),
    ],
)
def test_a_search_that_cannot_be_answered_is_a_tool_error_that_says_what_is_right(
    app: FastAPI, arguments: dict[str, Any], said: str
) -> None:
    assert said in refused(app, "search", **{"component": "words", **arguments})


def test_a_tool_that_is_not_there_is_named_with_those_that_are(app: FastAPI) -> None:
    assert refused(app, "delete_all") == (
        "there is no tool 'delete_all'; there is search, get, status, explain"
    )
    assert "there is no tool 'remember'" in refused(app, "remember"), "nobody asked for writes"


def test_an_answer_that_is_too_long_for_a_model_asks_for_less(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexrelay.service.mcp.server.MAX_RESULT_CHARACTERS", 100)
    assert "ask for fewer hits (k)" in refused(app, "search", component="words", text="refund")
    monkeypatch.setattr("indexrelay.service.mcp.api.MAX_ANSWER_BYTES", 100)
    assert "ask for fewer hits (k)" in refused(app, "search", component="words", text="refund")


def test_a_fault_of_the_server_says_no_more_than_that(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a secret")

    monkeypatch.setattr(Api, "ask", failing)
    assert refused(app, "get", component="words", ids=["refund"]) == (
        "this is a fault of the server; its log says more"
    )
    assert "tool.failed" in caplog.text


def test_a_reader_that_does_not_answer_is_a_tool_error() -> None:
    async def run() -> types.CallToolResult:
        api = Api.of_reader("unix:/nowhere/reader.sock", None)
        server = mcp_server(
            api_of=lambda _context: api, may_write=lambda _context: True, with_writes=False
        )
        async with Client(server) as client:
            return await client.call_tool("search", {"component": "words", "text": "refund"})

    result = asyncio.run(run())
    assert result.is_error
    assert "does not answer" in str(result.content)


@pytest.mark.parametrize("address", ["nowhere", "http://", "ftp://127.0.0.1"])
def test_an_address_that_is_none_is_refused_before_anything_is_asked(address: str) -> None:
    with pytest.raises(ReaderUnreachableError, match="is no address of a reader"):
        Api.of_reader(address, None)


def test_collections_are_resources(app: FastAPI) -> None:
    async def asking(client: Client) -> tuple[list[str], Any, Any]:
        listed = await client.list_resources()
        contents = [(await client.read_resource(each.uri)).contents[0] for each in listed.resources]
        texts = [each.text for each in contents if isinstance(each, types.TextResourceContents)]
        return [each.uri for each in listed.resources], *map(json.loads, texts)

    uris, every, one = asked(app, asking)
    assert uris == ["indexrelay://collections", "indexrelay://collections/notes"]
    assert every["collections"]["notes"] == one
    assert (one["dimension"], one["fields"]) == (3, {"topic": "keyword"})


@pytest.mark.parametrize(
    "uri",
    ["indexrelay://collections/nowhere", "indexrelay://collections/a%0Ab", "file:///etc/passwd"],
)
def test_a_resource_that_is_not_there_is_an_error_of_the_protocol(app: FastAPI, uri: str) -> None:
    async def asking(client: Client) -> None:
        with pytest.raises(MCPError, match="there is no resource"):
            await client.read_resource(uri)

    asked(app, asking)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_schema_is_tight_and_every_argument_is_described(tool: Any) -> None:
    Draft202012Validator.check_schema(tool.input_schema)
    _see_tight(tool.input_schema)
    assert len(tool.description) > 80
    for each in tool.input_schema["properties"].values():
        assert each["description"]


def _see_tight(schema: dict[str, Any]) -> None:
    assert not {"anyOf", "oneOf", "allOf", "$ref", "$defs"} & schema.keys(), (
        "some clients refuse it"
    )
    match schema["type"]:
        case "object":
            if "properties" in schema:
                assert schema["additionalProperties"] is False
                for each in schema["properties"].values():
                    _see_tight(each)
        case "array":
            assert schema["maxItems"]
            _see_tight(schema["items"])
        case "string":
            assert schema.keys() & {"maxLength", "pattern", "enum"}
        case "integer":
            assert "minimum" in schema
            assert "maximum" in schema


def test_tools_that_only_read_say_so(app: FastAPI) -> None:
    async def asking(client: Client) -> list[types.Tool]:
        return (await client.list_tools()).tools

    reading = asked(app, asking)
    assert [tool.name for tool in reading] == ["search", "get", "status", "explain"]
    assert all(tool.annotations and tool.annotations.read_only_hint for tool in reading)
    writing = asked(app, asking, with_writes=True)[len(reading) :]
    assert [tool.name for tool in writing] == ["remember", "forget"]
    hints = [tool.annotations for tool in writing]
    assert [hint and (hint.read_only_hint, hint.destructive_hint) for hint in hints] == [
        (False, False),
        (False, True),
    ]
