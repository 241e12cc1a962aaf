"""What an agent may ask by the Model Context Protocol, and what it is given."""

import asyncio
import os
import threading
from contextlib import suppress

import httpx
import mcp_types as types
import pytest
from mcp import Client

from indexrelay.service.mcp.api import Api
from indexrelay.service.mcp.server import mcp_server
from indexrelay.service.mcp.stdio import Lines
from tests.security.limits.table import Row, exercises


def answered(body: bytes, tool: str, **arguments: object) -> tuple[bool, str]:
    """Whether a call is an error, and what it says, where the API answers ``body``."""

    async def run() -> types.CallToolResult:
        answer = httpx.Response(200, stream=httpx.ByteStream(body))
        api = Api(httpx.MockTransport(lambda _request: answer))
        server = mcp_server(
            api_of=lambda _context: api, may_write=lambda _context: True, with_writes=True
        )
        async with Client(server) as client:
            return await client.call_tool(tool, dict(arguments))

    result = asyncio.run(run())
    [content] = result.content
    assert isinstance(content, types.TextContent)
    return bool(result.is_error), content.text


@exercises("hits, ids and entries of one tool call")
def _of_one_call(row: Row, _request: pytest.FixtureRequest) -> None:
    for tool, arguments, named in (
        ("search", {"component": "words", "text": "a", "k": row.number + 1}, "k"),
        ("get", {"component": "words", "ids": ["a"] * (row.number + 1)}, "ids"),
        ("remember", {"collection": "a", "entries": [{"text": "a"}] * (row.number + 1)}, "entries"),
        ("forget", {"collection": "a", "ids": ["a"] * (row.number + 1)}, "ids"),
    ):
        is_error, said = answered(b'{"hits":[]}', tool, **arguments)
        assert is_error
        assert said.startswith(f"{named}: ")
    assert answered(b'{"hits":[]}', "search", component="words", text="a", k=row.number) == (
        False,
        '{"hits": []}',
    )


@exercises("characters of what a tool gives back")
def _given_back(row: Row, _request: pytest.FixtureRequest) -> None:
    frame = len('{"hits": [], "a": ""}')
    for size, too_long in ((row.number - frame, False), (row.number - frame + 1, True)):
        body = b'{"hits":[],"a":"%b"}' % (b"x" * size)
        is_error, said = answered(body, "search", component="words", text="a")
        assert is_error is too_long
        assert ("ask for fewer hits (k)" in said) is too_long


@exercises("bytes of an answer that a tool reads")
def _read(row: Row, _request: pytest.FixtureRequest) -> None:
    body = b'{"hits":[]}'
    for spaces, said in ((row.number - len(body), '{"hits": []}'), (row.number, "ask for fewer")):
        _, told = answered(body + b" " * spaces, "search", component="words", text="a")
        assert said in told


@exercises("bytes of a line that comes over stdin")
def _line(row: Row, _request: pytest.FixtureRequest) -> None:
    async def lengths(length: int) -> list[int]:
        outgoing, incoming = os.pipe()

        def send() -> None:
            # Whoever sends more finds that nobody reads any longer.
            with suppress(BrokenPipeError), open(incoming, "wb") as pipe:  # noqa: PTH123
                pipe.write(b"x" * length + b"\nshort\n")

        sending = threading.Thread(target=send)
        sending.start()
        found = [len(line) async for line in Lines(outgoing)]
        os.close(outgoing)
        sending.join()
        return found

    assert asyncio.run(lengths(row.number)) == [row.number, 5]
    assert asyncio.run(lengths(row.number + 1)) == []
