"""MCP at /mcp of a reader: by the SDK's client, by tokens, and by those who should not ask."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import httpx
import httpx2
import mcp_types as types
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from indexrelay.reloaders import Reloader
from indexrelay.schemas.settings import HttpSettings, TokenSettings
from indexrelay.service.app import create_app
from indexrelay.service.mcp.api import Api
from indexrelay.service.mcp.server import mcp_server
from indexrelay.service.tokens import digest_of
from tests.service.app_server import running
from tests.service.mcp.conftest import Notes

ADMIN, READ, TENANT = "of-an-admin", "of-a-reader", "of-a-tenant"
LIMITS = HttpSettings(
    mcp=True,
    max_body_bytes=500_000,
    tokens={
        "admin": TokenSettings(sha256=digest_of(ADMIN), scope="admin"),
        "read": TokenSettings(sha256=digest_of(READ)),
        "tenant": TokenSettings(sha256=digest_of(TENANT), filter={"topic": "access"}),
    },
)
SEARCH = {"component": "words", "text": "refund login"}
CALL: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "search", "arguments": SEARCH},
}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def service(notes: Notes) -> Iterator[httpx.Client]:
    reader = Reloader(notes.settings, reader_id="agents")
    reader.step()
    with running(create_app(reader, LIMITS, is_local=True), LIMITS) as client:
        yield client


def asked(
    service: httpx.Client,
    token: str,
    asking: Callable[[Client], Coroutine[Any, Any, Any]],
    *,
    mode: str = "auto",
) -> Any:
    async def run() -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(headers=headers, trust_env=False) as http:
            transport = streamable_http_client(f"{service.base_url}/mcp", http_client=http)
            async with Client(transport, mode=mode) as client:
                return await asking(client)

    return asyncio.run(run())


async def searching(client: Client) -> set[str]:
    answer = await client.call_tool("search", SEARCH)
    assert not answer.is_error, answer.content
    return {hit["id"] for hit in answer.structured_content["hits"]}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_agent_asks_a_reader_by_streamable_http(service: httpx.Client, mode: str) -> None:
    assert asked(service, READ, searching, mode=mode) == {"refund", "long"}


def test_a_tenant_finds_what_is_the_tenants_and_sees_no_more(service: httpx.Client) -> None:
    async def asking(client: Client) -> tuple[set[str], Any, Any]:
        got = await client.call_tool("get", {"component": "words", "ids": ["refund", "long"]})
        status = await client.call_tool("status", {})
        with pytest.raises(MCPError, match="this token has a filter"):
            await client.list_resources()
        return await searching(client), got.structured_content["missing"], status

    found, missing, status = asked(service, TENANT, asking)
    assert (found, missing) == ({"long"}, ["refund"])
    assert status.is_error
    assert "name the component" in status.content[0].text


def test_nobody_asks_without_a_token_or_from_a_page_of_somebody_else(
    service: httpx.Client,
) -> None:
    assert service.post("/mcp", json=CALL, headers=ACCEPT).status_code == 401
    headers = {**ACCEPT, "Authorization": f"Bearer {READ}"}
    own = str(service.base_url)
    answer = service.post("/mcp", json=CALL, headers={**headers, "Origin": own})
    assert answer.json()["result"]["structuredContent"]["hits"]
    for origin in ("http://evil.example", "null", f"{own}0"):
        refused = service.post("/mcp", json=CALL, headers={**headers, "Origin": origin})
        assert refused.status_code == 403
        assert refused.headers["content-type"] == "application/problem+json"
    assert service.post("/mcp", json=CALL, headers={**headers, "Host": "evil"}).status_code == 421


def test_no_stream_is_held_open(service: httpx.Client) -> None:
    headers = {**ACCEPT, "Authorization": f"Bearer {READ}"}
    for method in ("GET", "DELETE"):
        assert service.request(method, "/mcp", headers=headers).status_code == 405


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[" * 300_000, 422),
        (b"[" + b"1," * 200_000 + b"1]", 422),
        (json.dumps([CALL, CALL]).encode(), 400),
        (json.dumps({**CALL, "method": "tools/erase"}).encode(), 200),
        (b" " * 500_001, 413),
    ],
    ids=["broken", "deep", "wide", "batch", "unknown method", "large"],
)
def test_a_body_that_is_no_call_is_refused_and_harms_nothing(
    service: httpx.Client, body: bytes, status: int
) -> None:
    headers = {
        **ACCEPT,
        "Authorization": f"Bearer {READ}",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": "2025-06-18",
    }
    answer = service.post("/mcp", content=body, headers=headers)
    assert answer.status_code == status
    if status == 200:
        assert "error" in answer.json()
    assert service.get("/ready").status_code == 200


def test_a_process_that_asks_a_reader_passes_its_token_on(service: httpx.Client) -> None:
    async def run(token: str | None) -> types.CallToolResult:
        api = Api.of_reader(str(service.base_url), token)
        server = mcp_server(
            api_of=lambda _context: api, may_write=lambda _context: True, with_writes=False
        )
        async with Client(server) as client:
            answer = await client.call_tool("search", SEARCH)
        await api.close()
        return answer

    answer = asyncio.run(run(TENANT))
    assert [hit["id"] for hit in answer.structured_content["hits"]] == ["long"]
    refused = asyncio.run(run(None))
    assert refused.is_error
    assert "Authorization: Bearer TOKEN" in str(refused.content)


def test_without_the_setting_there_is_no_such_path(notes: Notes) -> None:
    service = create_app(Reloader(notes.settings, reader_id="plain"))
    assert "/mcp" not in {getattr(route, "path", None) for route in service.routes}
