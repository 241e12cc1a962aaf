"""Run the example: ``python examples/web/run.py``.

Starts each server over a rebuilder of its own in a temporary folder, asks it over HTTP before
and after its first two batches, and leaves nothing behind. Ends 0 when all workers always agreed.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from indexrelay.producers import Producer
from indexrelay.schemas import load_settings
from indexrelay.streams import EmbeddedServer

HERE = Path(__file__).resolve().parent
LIMIT_SECONDS = 120.0
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Server:
    """How an application is served."""

    title: str
    command: str
    workers: int


SERVERS = (
    Server(
        title="FastAPI, two workers of uvicorn",
        # Importing an application takes longer than uvicorn's 5 seconds where much else runs.
        command="uvicorn --workers 2 --timeout-worker-healthcheck 60 --port {port} fastapi_app:app",
        workers=2,
    ),
    Server(
        title="Flask, its own server",
        command="flask --app flask_app run --port {port}",
        workers=1,
    ),
    Server(
        title="Flask, two workers of gunicorn, forked after the import",
        command="gunicorn --preload -w 2 -c gunicorn_conf.py -b 127.0.0.1:{port} flask_app:app",
        workers=2,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    body: Mapping[str, Any]
    retry_after: str | None

    def __str__(self) -> str:
        told = self.body.get("detail") or ", ".join(self.body["similar"])
        again = f" (Retry-After: {self.retry_after})" if self.retry_after else ""
        return f"{self.status} {told}{again}"


class Client:
    """Asks one server."""

    def __init__(self, port: int, *, workers: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._workers = workers

    def get(self, path: str) -> Answer | None:
        """``None``: the server does not listen yet."""
        try:
            with urlopen(self._url + path, timeout=LIMIT_SECONDS) as reply:  # noqa: S310 - http
                return Answer(status=reply.status, body=json.load(reply), retry_after=None)
        except HTTPError as reply:
            again = reply.headers["Retry-After"]
            return Answer(status=reply.code, body=json.load(reply), retry_after=again)
        except (URLError, ConnectionError):
            return None

    def first(self, path: str) -> Answer:
        """The answer, as soon as there is one."""
        return eventually(lambda: self.get(path))

    def of_each_worker(self, path: str) -> list[Answer]:
        """Ask, several at once, until every worker has answered; one answer of each."""
        answers: dict[int, Answer] = {}
        with ThreadPoolExecutor(8) as pool:

            def ask() -> list[Answer] | None:
                for answer in pool.map(self.get, [path] * 8):
                    if answer is not None and answer.status == 200:
                        answers[answer.body["pid"]] = answer
                return list(answers.values()) if len(answers) == self._workers else None

            return eventually(ask)


def main() -> int:
    agreed = [show(server) for server in SERVERS]
    return 0 if all(agreed) else 1


def show(server: Server) -> bool:
    """Everything that a client may meet; whether all workers gave the same answers."""
    print(server.title)
    port = free_port()
    command = server.command.format(port=port).split()
    with (
        tempfile.TemporaryDirectory(prefix="indexrelay-web-") as folder,
        EmbeddedServer(Path(folder)),
        running(["indexrelay.console.main", "rebuilder"], folder),
        running(command, folder),
    ):
        client = Client(port, workers=server.workers)
        print("  before the first batch:", client.first("/similar/calm"))
        commit(folder, "first", {"calm": [1, 0.1], "loud": [0.1, 1]}, workers=server.workers)
        same = agree("after it", client.of_each_worker("/similar/calm"))
        print("  an unknown track:", client.first("/similar/unheard"))
        print("  a wrong question:", client.first("/similar/calm?k=0"))
        commit(folder, "second", {"soft": [1, 0.2]}, workers=server.workers)
        return agree("after the next", client.of_each_worker("/similar/calm")) and same


def agree(when: str, answers: Sequence[Answer]) -> bool:
    """Print the answers, once where all are the same."""
    different = sorted({str(answer) for answer in answers})
    of = "" if len(answers) == 1 else f", the same from {len(answers)} workers"
    print(f"  {when}: {' | '.join(different)}{of if len(different) == 1 else ''}")
    return len(different) == 1


def commit(
    folder: str, batch_id: str, tracks: Mapping[str, Sequence[float]], *, workers: int
) -> None:
    """What a job does: commit a batch, and wait until every worker serves it.

    Raises:
        NotServedError: some worker did not get that far.
    """
    settings = load_settings(HERE / "indexrelay.toml", environ={"INDEXRELAY_DATA_DIR": folder})
    with Producer.open(settings) as producer:
        with producer.batch("tracks", batch_id) as batch:
            batch.upsert(list(tracks), list(tracks.values()))
        producer.wait_served(batch.commit, timeout_seconds=LIMIT_SECONDS, readers={"web": workers})


@contextmanager
def running(command: Sequence[str], folder: str) -> Iterator[None]:
    """A Python program as a process, with the settings of this example."""
    environment = {
        **os.environ,
        "INDEXRELAY_CONFIG": str(HERE / "indexrelay.toml"),
        "INDEXRELAY_DATA_DIR": folder,
    }
    with (Path(folder) / f"{command[0]}.log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=HERE, env=environment, stdout=log, stderr=log
        )
        try:
            yield
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read())
            raise
        finally:
            process.terminate()
            process.wait(LIMIT_SECONDS)


def eventually(look: Callable[[], T | None]) -> T:
    """What ``look`` finds, as soon as it does.

    Raises:
        TimeoutError: it found nothing in time.
    """
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"nothing for {LIMIT_SECONDS} seconds")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
