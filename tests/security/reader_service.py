"""A reader service in a process of its own, over real indexes, that a test may attack.

What is served was built by the testing pipeline, in a folder of the test's own. The process looks
into the artifacts by itself, so that no server is needed.
"""

import contextlib
import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexrelay.schemas.settings import Settings
from indexrelay.testing import Pipeline

ROOT = Path(__file__).parents[2]
DIMENSION = 64
START_SECONDS = 30.0

PROGRAM = """
import json, sys
from indexrelay.service import serve
from indexrelay.schemas.logs import catch_strays, configure_logs
from indexrelay.schemas.settings import Settings
given = json.loads(sys.argv[1])
settings = Settings.model_validate(given["settings"])
configure_logs(settings.log)
catch_strays()
serve(settings, reader_id="attacked", port=given["port"])
"""


def settings_in(folder: Path, **tables: Any) -> Settings:
    """One collection, found by vector, by text and as a document."""
    return Settings.model_validate(
        {
            "namespace": "security",
            "data_dir": folder,
            "reader": {"poll_seconds": 0.2, "start_spread_seconds": 0},
            "log": {"format": "json"},
            "collections": {
                "tracks": {
                    "dimension": DIMENSION,
                    "metric": "l2",
                    "filterable": {"tenant": "keyword"},
                }
            },
            "components": {
                "similar": {"kind": "vector_index", "from": "tracks", "index": "Flat"},
                "words": {"kind": "text_index", "from": "tracks"},
            },
            **tables,
        }
    )


@dataclass
class Installation:
    """What is served, and how to release more of it."""

    folder: Path
    pipeline: Pipeline
    _batches: int = 0

    @classmethod
    def made(cls, folder: Path, *, entries: int, payload_bytes: int = 100) -> "Installation":
        """Commit and release ``entries`` entries."""
        installation = cls(folder, Pipeline(settings_in(folder), folder))
        installation.release(entries, payload_bytes=payload_bytes)
        return installation

    def release(self, entries: int, *, payload_bytes: int = 100) -> int:
        """Commit so many more entries and release them; the release's number."""
        random = np.random.default_rng(self._batches)
        ids = [f"track-{self._batches}-{row}" for row in range(entries)]
        self._batches += 1
        with self.pipeline.producer.batch("tracks") as batch:
            batch.upsert(
                ids,
                random.normal(size=(entries, DIMENSION)).astype(np.float32),
                texts=[f"song number {row}" for row in range(entries)],
                payloads=[
                    {"about": "x" * payload_bytes, "tenant": ("shop", "bank")[row % 2]}
                    for row in range(entries)
                ],
            )
        self.pipeline.rebuild()
        newest = self.pipeline.store.newest_release()
        assert newest is not None
        return newest.number

    @contextlib.contextmanager
    def serving(
        self,
        *,
        http: dict[str, Any] | None = None,
        token: str | None = None,
        descriptors: int | None = None,
        python: str = sys.executable,
    ) -> Iterator["Service"]:
        """A process that serves it, once it is ready.

        Args:
            http: limits of the service, and its tokens; ``None``: as they are by default.
            token: what `Service.ask` shows; ``None``: nothing.
            descriptors: how many files it may have open at most; ``None``: as we may.
            python: the interpreter, and with it the code, that serves.
        """
        tables = self.pipeline.settings.model_dump(
            mode="json",
            by_alias=True,
            exclude_defaults=True,  # an earlier version, measured beside this one, has other keys
        )
        if http is not None:
            tables["http"] = http
        port = _free_port()
        given = {"settings": tables, "port": port}
        log = self.folder / f"service-{port}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [python, "-c", PROGRAM, json.dumps(given)],
                stdout=out,
                stderr=out,
                cwd=self.folder,
            )
        service = Service(process, port, log, token)
        try:
            if descriptors is not None:
                limits = (descriptors, descriptors)
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
            service.wait_ready()
            yield service
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Service:
    """The process, and what is seen of it from outside."""

    process: "subprocess.Popen[bytes]"
    port: int
    log: Path
    token: str | None = None

    def wait_ready(self) -> None:
        """Wait until it serves everything."""
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def wait_log(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until it has logged such an event."""
        deadline = time.monotonic() + START_SECONDS
        while not any(wanted(event) for event in self._events()):
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.02)

    def _events(self) -> Iterator[dict[str, Any]]:
        whole, _, _ = self.log.read_bytes().rpartition(b"\n")
        for line in whole.splitlines():
            yield json.loads(line)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.ask("GET /ready", timeout=5)[0] == 200
        return False

    def connect(self, *, timeout: float = 30.0) -> socket.socket:
        """A connection of one's own."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def ask(
        self, request: str, body: bytes | None = None, *, timeout: float = 30.0
    ) -> tuple[int, bytes]:
        """Status and body of ``METHOD /path`` over a new connection."""
        with self.connect(timeout=timeout) as connection:
            connection.sendall(message(request, body, close=True, token=self.token))
            return answered(connection)

    def health_seconds(self, *, timeout: float = 30.0) -> float:
        """How long one look at ``/health`` takes; the timeout where there is no answer."""
        started = time.monotonic()
        try:
            status, _ = self.ask("GET /health", timeout=timeout)
        except OSError:
            return timeout
        return time.monotonic() - started if status == 200 else timeout

    def resident_bytes(self) -> int:
        """Private memory: what is mapped of indexes does not count."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text(encoding="ascii")
        rows = dict(line.split(":") for line in text.splitlines()[1:])
        return 1024 * sum(int(rows[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))

    def descriptors(self) -> int:
        """How many files it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def log_lines(self) -> int:
        """How many lines it has written."""
        return self.log.read_bytes().count(b"\n")

    def release(self) -> int:
        """The release that it serves."""
        number: int = json.loads(self.ask("GET /v1/components")[1])["release"]
        return number


def message(
    request: str, body: bytes | None = None, *, close: bool = False, token: str | None = None
) -> bytes:
    """``METHOD /path`` as HTTP/1.1."""
    lines = [f"{request} HTTP/1.1", "host: localhost"]
    if token is not None:
        lines.append(f"authorization: Bearer {token}")
    if close:
        lines.append("connection: close")
    if body is not None:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def received(connection: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    found = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 20):
            found += piece
    return bytes(found)


def answered(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of an answer that ends with its connection."""
    head, separator, body = received(connection).partition(b"\r\n\r\n")
    if not separator:
        raise ConnectionError("the connection ended before an answer")
    return int(head.split(None, 2)[1]), body


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number
