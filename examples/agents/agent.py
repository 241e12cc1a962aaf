"""One agent, in a process of its own: it is told what to do line by line, and says what it found.

    python agent.py NAME http URL      over HTTP, to an instance that runs
    python agent.py NAME mcp URL       by MCP over streamable HTTP, to an instance that runs
    python agent.py NAME stdio         by MCP over stdio: `indexrelay mcp` is its own instance

A line is a JSON object: ``{"remember": [TEXT, …]}`` or ``{"ask": QUESTION, "session": SESSION}``.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
from mcp import Client, StdioServerParameters, stdio_client

COMMAND = str(Path(sys.executable).with_name("indexrelay"))
COLLECTION, COMPONENT = "experiences", "memory"


class Door(Protocol):
    """How an agent reaches what all of them share."""

    async def remember(self, entries: list[dict[str, Any]]) -> dict[str, Any]: ...

    async def search(self, question: dict[str, Any]) -> dict[str, Any]: ...


class HttpDoor:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def remember(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        path = f"/v1/collections/{COLLECTION}/entries"
        return self._answer(await self._client.put(path, json={"entries": entries}))

    async def search(self, question: dict[str, Any]) -> dict[str, Any]:
        path = f"/v1/components/{COMPONENT}"
        found = self._answer(await self._client.post(f"{path}/search", json=question))
        ids = {"ids": [hit["id"] for hit in found["hits"]]}
        held = self._answer(await self._client.post(f"{path}/entries", json=ids))
        for hit, entry in zip(found["hits"], held["entries"], strict=True):
            hit["text"] = entry["text"]
        return found

    def _answer(self, response: httpx.Response) -> dict[str, Any]:
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer


class McpDoor:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def remember(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        return await self._call("remember", {"collection": COLLECTION, "entries": entries})

    async def search(self, question: dict[str, Any]) -> dict[str, Any]:
        return await self._call("search", {"component": COMPONENT, **question})

    async def _call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        result = await self._client.call_tool(tool, arguments)
        if result.is_error:
            raise RuntimeError(result.content)
        found: dict[str, Any] = result.structured_content
        return found


@asynccontextmanager
async def opened(way: str, url: str) -> AsyncIterator[Door]:
    if way == "http":
        async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
            yield HttpDoor(client)
    elif way == "mcp":
        async with Client(f"{url}/mcp") as client:
            yield McpDoor(client)
    else:
        own = StdioServerParameters(
            command=COMMAND, args=["mcp", "--write"], env={**os.environ}, cwd=Path.cwd()
        )
        async with Client(stdio_client(own)) as client:
            yield McpDoor(client)


async def main(name: str, way: str, url: str = "") -> None:
    async with opened(way, url) as door:
        while line := await asyncio.to_thread(sys.stdin.readline):
            told = json.loads(line)
            if "remember" in told:
                entries = [
                    {"id": f"{name}-{number}", "text": text, "payload": {"agent": name}}
                    for number, text in enumerate(told["remember"], 1)
                ]
                said = await door.remember(entries)
            else:
                said = await door.search({"text": told["ask"], "k": 1, "session": told["session"]})
            print(json.dumps(said), flush=True)


asyncio.run(main(*sys.argv[1:]))  # `run.py` starts it; nothing imports it
