"""``indexrelay mcp`` as a process: what an agent's program starts, and talks to over two pipes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from tests.service.mcp.conftest import Notes

COMMAND = Path(sys.executable).with_name("indexrelay")
NOISY = """
import os
from indexrelay.components.text_index import TextIndex

print("printed while it is imported")
os.write(1, b"written past Python")

class Noisy(TextIndex):
    pass
"""


def in_folder(folder: Path, *arguments: str) -> StdioServerParameters:
    return StdioServerParameters(command=str(COMMAND), args=["mcp", *arguments], cwd=folder)


def test_an_agent_starts_it_and_asks(notes: Notes) -> None:
    async def asked() -> tuple[list[str], list[str]]:
        with open(os.devnull, "w", encoding="utf-8") as log:  # noqa: PTH123 - a device
            async with Client(stdio_client(in_folder(notes.folder), errlog=log)) as client:
                tools = await client.list_tools()
                answer = await client.call_tool("search", {"component": "words", "text": "refund"})
                assert not answer.is_error, answer.content
                found = [hit["id"] for hit in answer.structured_content["hits"]]
                return [tool.name for tool in tools.tools], found

    assert asyncio.run(asked()) == (["search", "get", "status", "explain"], ["refund"])


@contextmanager
def process(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    started = subprocess.Popen(
        [COMMAND, "mcp", *arguments],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with started:
        try:
            yield started
        finally:
            started.kill()


def send(started: "subprocess.Popen[bytes]", line: bytes) -> None:
    assert started.stdin is not None
    started.stdin.write(line + b"\n")
    started.stdin.flush()


def said(started: "subprocess.Popen[bytes]", method: str, **params: Any) -> Any:
    """The answer to a request that is written by hand."""
    send(
        started,
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode(),
    )
    assert started.stdout is not None
    answer = json.loads(started.stdout.readline())
    assert answer["id"] == 1
    return answer["result"]


HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "by hand", "version": "1"},
}


@pytest.fixture
def noisy(notes: Notes, tmp_path: Path) -> Path:
    """The same installation, whose settings name a module that prints."""
    config = (notes.folder / "indexrelay.toml").read_text(encoding="utf-8")
    table = '[components.noisy]\nkind = "noisy:Noisy"\nfrom = "notes"\nrequired = false\n'
    (tmp_path / "noisy.py").write_text(NOISY, encoding="utf-8")
    (tmp_path / "indexrelay.toml").write_text(
        config.replace('"data"', f'"{notes.folder}/data"') + table,
        encoding="utf-8",
    )
    return tmp_path


def test_stdout_carries_the_protocol_alone_and_garbage_ends_nothing(noisy: Path) -> None:
    with process(noisy) as started:
        hello = said(started, "initialize", **HELLO)
        assert hello["serverInfo"]["name"] == "indexrelay"
        assert "`status` first" in hello["instructions"]
        send(started, b"\xff\xfe no JSON")
        send(started, b"[" * 100_000)
        send(started, b'{"jsonrpc": "2.0", "method": "notifications/initialized"}')
        answer = said(started, "tools/call", name="search", arguments={"component": "words\n"})
        assert answer["isError"]
        assert started.stdin is not None
        started.stdin.close()
        assert started.wait(20) == 0, "it ends with its stdin"
        assert started.stdout is not None
        assert started.stdout.read() == b""
        assert started.stderr is not None
        assert b"printed while it is imported" in started.stderr.read()


def test_a_signal_ends_it_in_order_while_its_parent_says_nothing(notes: Notes) -> None:
    with process(notes.folder) as started:
        said(started, "initialize", **HELLO)
        started.send_signal(signal.SIGTERM)
        assert started.wait(20) == 0
        assert started.stderr is not None
        assert b"reader.stopped" in started.stderr.read()
