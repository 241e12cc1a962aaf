"""One installation with an admin page, of processes as an operator starts them.

A server, a rebuilder, two readers and the admin service. `Site` starts them in a folder, fills the
collection, and lets tests kill and start again what they like.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx
from argon2 import PasswordHasher

from indexrelay.producers import Producer
from indexrelay.schemas.messages import ComponentState, LoadOutcome, ReaderState
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.streams import Connection, EmbeddedServer, Keys
from indexrelay.streams.presence import Presence
from tests.browser import documents
from tests.fixtures.warm_process import WarmProcess

OPERATOR, VIEWER = ("ada", "correct horse battery staple"), ("vic", "only looking around")
"""Names and passwords."""
READERS = ("north", "south")
COMPONENTS = ("both", "map", "similar", "topics", "words")
_PATIENCE_SECONDS = 60.0
"""A busy machine may take long to start a process."""
_QUICK = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)

HEAD = """
namespace = "library"
data_dir = "data"
modules_dir = "{modules}"

[log]
level = "warning"

[admin]
port = {port}

[admin.users.ada]
password = "{operator}"
role = "operator"

[admin.users.vic]
password = "{viewer}"
role = "viewer"
"""
TABLES = """
[rebuilder]
quiet_seconds = 0.05
build_niceness = 0
release_after_seconds = 60
failure_cooldown_seconds = 600
presence_ttl_seconds = 3

[reader]
poll_seconds = 0.5
presence_ttl_seconds = 3

[backups]
dir = "backups"

[schedules.nightly]
cron = "0 3 * * *"

[collections.documents]
dimension = {dimension}
embedder = "documents:embed"
max_payload_bytes = 2_000_000
max_text_bytes = 2_000_000
filterable = {{ topic = "keyword" }}

[components.similar]
kind = "vector_index"
from = "documents"
index = "Flat"

[components.words]
kind = "text_index"
from = "documents"

[components.both]
kind = "search"
from = "documents"
vector = {{ index = "Flat" }}

[components.map]
kind = "projection"
from = "documents"

[components.topics]
kind = "json_cache"
from = "documents"
function = "documents:listed"
arguments = {{ breaks = "{breaks}" }}
"""


class Site:
    """The processes of one installation, and its page."""

    def __init__(self, folder: Path, tables: str, stack: ExitStack) -> None:
        """Start the server.

        Args:
            folder: of everything.
            tables: of the settings, besides who may log in.
            stack: what ends everything.
        """
        self.folder = folder
        self.port, *ports = free_ports(1 + len(READERS))
        self.url = f"http://127.0.0.1:{self.port}/"
        self._ports = dict(zip(READERS, ports, strict=True))
        self._config = folder / "indexrelay.toml"
        head = HEAD.format(
            modules=Path(documents.__file__).parent,
            port=self.port,
            operator=_QUICK.hash(OPERATOR[1]),
            viewer=_QUICK.hash(VIEWER[1]),
        )
        self._config.write_text(head + tables, encoding="utf-8")
        self.settings: Settings = load_settings(self._config, environ={})
        server = EmbeddedServer(self.settings.data_dir)
        stack.callback(server.stop)
        self.connection = stack.enter_context(Connection.open(server.start()))
        self.keys = Keys(self.settings.namespace)
        self.store = ArtifactStore.of(self.settings)
        self.producer = stack.enter_context(Producer.open(self.settings))
        self._client = stack.enter_context(httpx.Client(trust_env=False, verify=False))  # noqa: S501 - no TLS here, and certificates take long to load
        self._processes: dict[str, WarmProcess] = {}
        stack.callback(self._end)

    def start(self, name: str) -> None:
        """Start ``rebuilder``, ``admin`` or a reader, which does not run."""
        role = [name]
        if name in READERS:
            role = ["reader", "--id", name, "--port", str(self._ports[name])]
        with self.log(name).open("ab") as log:
            process = WarmProcess(
                ["indexrelay.console.main", *role, "--config", str(self._config)],
                log=log,
                cwd=self.folder,
            )
        self._processes[name] = process

    def kill(self, name: str) -> None:
        """End one with SIGKILL, as a crash would."""
        self._processes[name].kill()
        self._processes[name].wait(_PATIENCE_SECONDS)

    def stop(self, name: str) -> None:
        """Let one end by itself."""
        self._processes[name].terminate()
        self._processes[name].wait(_PATIENCE_SECONDS)

    def _end(self) -> None:
        """Let all of them end at the same time."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait(_PATIENCE_SECONDS)

    def log(self, name: str) -> Path:
        """What one has written."""
        return self.folder / f"{name}.log"

    @property
    def breaks(self) -> Path:
        """While this file is there, builds of ``topics`` wait, or fail with its words."""
        return self.folder / "breaks"

    def await_page(self) -> None:
        """Wait until the admin service answers."""

        def answers() -> bool:
            with suppress(httpx.TransportError):
                return self._client.get(f"{self.url}api/admin/health").is_success
            return False

        self.wait("the admin service to answer", answers)

    def await_release(self, number: int) -> None:
        """Wait until both readers serve at least the release ``number``."""

        def serves(port: int) -> bool:
            with suppress(httpx.TransportError):
                state = self._client.get(f"http://127.0.0.1:{port}/v1/state").json()
                return bool(state["release"] >= number)
            return False

        self.wait(f"release {number}", lambda: all(map(serves, self._ports.values())))

    def wait(self, what: str, condition: Callable[[], object]) -> None:
        """Wait for what another process does; its logs are shown where that does not come."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}{self._logs()}"
            time.sleep(0.05)

    def _logs(self) -> str:
        return "".join(f"\n── {name}\n{self.log(name).read_text()}" for name in self._processes)

    def plant_reader(self, label: str, hostile: str) -> None:
        """Publish the presence of a reader that is none, with ``hostile`` in every free text."""
        now = datetime.now(UTC)
        newest = self.store.newest_release()
        assert newest is not None
        failed = ComponentState(outcome=LoadOutcome.FAILED, error=hostile)
        state = ReaderState(
            reader=label,
            host=hostile[:1000],
            address=hostile[:1000],
            pid=1,
            instance="0123456789abcdef",
            started_at=now,
            updated_at=now,
            ready=False,
            release=newest.number,
            components={"similar": failed, "words": failed},
        )
        presence = Presence(self.connection, self.keys, "reader")
        body = state.model_dump_json().encode()
        presence.publish(state.member, body, ttl_seconds=600)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in found]


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """An installation over `documents` that serves its first release."""
    entries = {**documents.texts(), **documents.HOSTILE}
    with ExitStack() as stack:
        tables = TABLES.format(dimension=documents.DIMENSION, breaks=folder / "breaks")
        running = Site(folder, tables, stack)
        for name in ("rebuilder", *READERS, "admin"):
            running.start(name)
        with running.producer.batch("documents") as batch:
            batch.upsert(
                list(entries),
                texts=list(entries.values()),
                payloads=[documents.payload(*entry) for entry in entries.items()],
            )
        running.await_page()
        running.await_release(1)
        running.plant_reader("stranger", f"{documents.MARKUP} {documents.CONTROLS}")
        yield running
