"""Run the example: ``python examples/agents/run.py``.

Starts a server, a rebuilder and two instances of the reader service in a temporary folder, and
three agents, each a process of its own, that write what they learned and ask what the others know.
Leaves nothing behind. Ends 0 when every agent found what another one had just written.
"""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from indexrelay.producers import Producer
from indexrelay.schemas import load_settings
from indexrelay.streams import EmbeddedServer

HERE = Path(__file__).resolve().parent
COMMAND = str(Path(sys.executable).with_name("indexrelay"))
LIMIT_SECONDS = 60.0

FIRST = "Read the handbook before you change the billing service."
LEARNED = {
    "ada": ["When the ingest queue is stuck, restart the worker: it holds a stale lock."],
    "bob": ["Customers ask for refunds in the first week of a month: staff the billing desk."],
    "cleo": ["The search page is slow after a deploy until its caches are warm."],
}
QUESTIONS = {
    "ada": "how many people want a refund this month?",
    "bob": "why are pages slow right after a release?",
    "cleo": "jobs wait in the queue and nothing moves",
}


class Process:
    """A program that is told something and answers, line by line."""

    def __init__(self, stack: ExitStack, *command: str) -> None:
        self._program = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        stack.callback(self._end)

    def told(self, **what: Any) -> Any:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{json.dumps(what)}\n")
        self._program.stdin.flush()
        return json.loads(self._program.stdout.readline())

    def _end(self) -> None:
        """Wait for what is done, and no longer."""
        assert self._program.stdin is not None
        self._program.stdin.close()
        try:
            self._program.wait(LIMIT_SECONDS)
        finally:
            self._program.kill()
            self._program.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def started(stack: ExitStack, *arguments: str) -> None:
    """A role, which ends with the example."""
    role = subprocess.Popen([COMMAND, *arguments])
    stack.callback(role.wait)
    stack.callback(role.terminate)


def await_ready(url: str) -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/ready", trust_env=False).is_success:
                return
        if time.monotonic() > end:
            raise TimeoutError(f"{url} is not ready")
        time.sleep(0.05)


def main() -> int:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="indexrelay-agents-")))
        os.environ |= {
            "INDEXRELAY_CONFIG": str(HERE / "indexrelay.toml"),
            "INDEXRELAY_DATA_DIR": str(folder),
            "INDEXRELAY_LIVE__KEYS": json.dumps([secrets.token_hex(32)]),
        }
        server = EmbeddedServer(folder)
        stack.callback(server.stop)
        os.environ["INDEXRELAY_REDIS__URL"] = server.start()
        started(stack, "rebuilder", "--id", "builder")
        urls = {}
        for name in ("north", "south"):
            port = free_port()
            urls[name] = f"http://127.0.0.1:{port}"
            started(stack, "reader", "--id", name, "--port", str(port))
        producer = stack.enter_context(Producer.open(load_settings(HERE / "indexrelay.toml")))
        with producer.batch("experiences") as batch:
            batch.upsert(["handbook"], texts=[FIRST], payloads=[{"agent": "nobody"}])
        for url in urls.values():
            await_ready(url)
        print("two instances serve what is known so far: one entry")

        agent = (sys.executable, str(HERE / "agent.py"))
        agents = {
            "ada": Process(stack, *agent, "ada", "http", urls["north"]),
            "bob": Process(stack, *agent, "bob", "mcp", urls["south"]),
            "cleo": Process(stack, *agent, "cleo", "stdio"),
        }
        print("ada is at north over HTTP, bob at south by MCP, cleo has an instance of her own")
        sessions = {}
        for name, process in agents.items():
            sessions[name] = process.told(remember=LEARNED[name])["session"]
            print(f"{name} remembers: {LEARNED[name][0]}")
        # The last one who wrote had seen the most; whoever asks with that sees all of it.
        wrong = 0
        for name, process in agents.items():
            answer = process.told(ask=QUESTIONS[name], session=sessions["cleo"])
            [hit] = answer["hits"]
            print(f"{name} asks: {QUESTIONS[name]}")
            print(f"  {hit['payload']['agent']} knows: {hit['text']}")
            wrong += hit["payload"]["agent"] in (name, "nobody") or answer["degraded"]
        print("each found what another had just written" if not wrong else "something is missing")
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
