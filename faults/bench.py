"""A whole installation of real processes on a real server, with short timings, for one scenario.

Every process is armed at every failpoint with a token of its own: a point does nothing until a
scenario puts its token there; then it acts on the first process that passes it.
"""

import json
import re
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import numpy as np
from redis import Redis

from deploy.redis.render_acl import render
from faults.checker import check
from faults.links import Link
from faults.processes import Process
from faults.recorder import COLLECTION, Recorder
from indexrelay.producers import Producer
from indexrelay.schemas.failpoints import FAILPOINTS, VARIABLE
from indexrelay.schemas.messages import BatchCompleted, Event, ReaderState
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog, Commit
from indexrelay.streams import Connection, Keys, current_release, members_of
from tests.fixtures.acl import ADMIN, ADMIN_LINE, DEPLOY, PASSWORDS, url_of
from tests.fixtures.servers import PrivateServer
from tests.streams.polling import eventually

LEASE_SECONDS = 0.6
BLOCK_SECONDS = 0.3
RECONCILE_SECONDS = 1.0
HERD = 50
"""Readers of a ``herd``, a process each."""
PATIENCE_SECONDS = 30.0
"""Long enough on a busy machine; that it went quickly enough is judged by the recovery time."""
NAMESPACE = "faults"
TIMINGS = """
[rebuilder]
quiet_seconds = 0.02
max_delay_seconds = 0.5
release_after_seconds = 0.5
lease_ttl_seconds = {lease}
block_seconds = {block}
claim_idle_seconds = 0.5
reconcile_seconds = {reconcile}
trim_seconds = {trim}
failure_cooldown_seconds = 0.1
presence_ttl_seconds = 1.5
keep_releases = 1000000 # the checker reads all of them
[reader]
poll_seconds = 0.5
block_seconds = {block}
presence_ttl_seconds = 1.5
retry_seconds = 0.2
[log]
format = "json"
[collections.{collection}]
dimension = 2
metric = "l2"
"""
KIND = "faults.kinds:RollCall"
COMPONENTS: Mapping[str, Mapping[str, Any]] = {
    "left": {"from": [COLLECTION], "group": "pair"},
    "right": {"from": [COLLECTION], "group": "pair"},
}


class Bench:
    """One namespace: a server, rebuilders, readers, a job, and a witness."""

    def __init__(
        self,
        program: Path,
        *,
        components: Mapping[str, Mapping[str, Any]] = COMPONENTS,
        deed: str = "kill",
        trim_seconds: float = 60.0,
        linked: Sequence[str] = (),
        url: str | None = None,
        tables: str = "",
        guarded: bool = False,
    ) -> None:
        """Nothing runs yet.

        Args:
            program: the server's.
            components: their tables in the settings, by name.
            deed: what every failpoint does to the process that takes its token.
            trim_seconds: how often streams are trimmed.
            linked: the roles that reach the server over a `Link` of their own.
            url: of servers that the scenario keeps itself; ``None``: one of its own, `server`.
            tables: more of the settings file.
            guarded: behind the shipped access list, everybody as a user of his own; readers are
                called like theirs.
        """
        self._closing = ExitStack()
        # Not among pytest's folders: their paths are long, and a socket's path is short.
        folder = self._closing.enter_context(tempfile.TemporaryDirectory(prefix="ir-"))
        self.folder = Path(folder)
        self._server: PrivateServer | None = None
        if url is None:
            self._server = PrivateServer(self.folder / "server", program)
            self._closing.callback(self._server.stop)
            url = self._server.url
        self.guard: Guard | None = None
        if guarded:
            self.guard = Guard(url, NAMESPACE)
            self._closing.callback(self.guard.open)
            self.guard.close()
            url = self.guard.url_of(ADMIN)
        self.config = self.folder / "indexrelay.toml"
        timings = TIMINGS.format(
            lease=LEASE_SECONDS,
            block=BLOCK_SECONDS,
            reconcile=RECONCILE_SECONDS,
            trim=trim_seconds,
            collection=COLLECTION,
        )
        self._tables = timings + tables + _component_tables(components)
        self._configure(self.config, url)
        self.links: dict[str, Link] = {}
        for role in linked:
            link = self.links[role] = Link(Path(self.server.url.removeprefix("unix://")))
            self._closing.callback(link.close)
            self._configure(self._config_of(role, role), link.url)
        self.settings = load_settings(self.config, environ={})
        self.keys = Keys(NAMESPACE)
        self.catalog = Catalog.open(self.settings.catalog_url)
        self._closing.callback(self.catalog.close)
        self.store = ArtifactStore(self.settings.artifacts_dir)
        self.connection = self._closing.enter_context(Connection.open(url, timeout_seconds=2))
        self.producer = Producer(
            self.settings, catalog=self.catalog, connection=self._connection_of("producer")
        )
        for name in ("tokens", "logs", "samples"):
            (self.folder / name).mkdir()
        self.recorder = Recorder(
            self.settings,
            catalog=self.catalog,
            store=self.store,
            connection=self.connection,
            samples=self.folder / "samples",
        )
        self._closing.callback(self.recorder.close)
        self._deed = deed
        self.processes: dict[str, Process] = {}
        self._batches = 0

    @property
    def server(self) -> PrivateServer:
        """The server of its own."""
        assert self._server is not None
        return self._server

    def _configure(self, file: Path, url: str) -> None:
        head = f'namespace = "{NAMESPACE}"\ndata_dir = "data"\n[redis]\nurl = "{url}"\n'
        file.write_text(f"{head}timeout_seconds = 1.0\n{self._tables}", encoding="utf-8")

    def _config_of(self, role: str, name: str) -> Path:
        if role in self.links:
            return self.folder / f"{role}.toml"
        if self.guard is None:
            return self.config
        user = role if role == "rebuilder" else name
        file = self.folder / f"{user}.toml"
        self._configure(file, self.guard.url_of(user))
        return file

    def _connection_of(self, user: str) -> Connection:
        """A connection as a user of the access list, where there is one."""
        if self.guard is None:
            return self.connection
        return self._closing.enter_context(
            Connection.open(self.guard.url_of(user), timeout_seconds=2)
        )

    def token(self, point: str) -> Path:
        """The file that makes ``point`` act on the next process that passes it."""
        return self.folder / "tokens" / point

    def clock(self, name: str) -> Path:
        """The file with the seconds by which the clock of a ``misdated`` one is wrong."""
        return self.folder / f"{name}.clock"

    def socket(self, name: str) -> Path:
        """Where an ``instance`` listens."""
        return self.folder / f"{name}.sock"

    def start(self, role: str, name: str, *, config: Path | None = None) -> Process:
        """Start a ``rebuilder`` or a ``misdated`` one, a ``reader``, a ``live`` one, a ``herd`` or
        ``workers`` of these, an ``instance`` of the reader service, or a ``producer``; with the
        settings of its role, or its own."""
        config = config or self._config_of(role, name)
        roles: dict[str, tuple[str, list[object]]] = {
            "rebuilder": (
                "indexrelay.console.main",
                ["rebuilder", "--id", name, "--config", config],
            ),
            "reader": (
                "faults.readers",
                ["query", config, name, self.folder / "samples" / f"{name}.jsonl"],
            ),
            "live": ("faults.readers", ["live", config, name]),
            "instance": (
                "indexrelay.console.main",
                ["reader", "--id", name, "--uds", self.socket(name), "--config", config],
            ),
            "misdated": ("faults.roles", ["rebuilder", config, name, self.clock(name)]),
            "workers": ("faults.readers", ["workers", config]),
            "producer": ("faults.roles", ["producer", config]),
            "herd": ("faults.readers", ["herd", config, HERD, self.folder / "logs"]),
        }
        module, arguments = roles[role]
        return self._start(name, module, arguments)

    def intrude(self, label: str, *, victim: str) -> Process:
        """Start an intruder that has the password of the reader ``label``."""
        assert self.guard is not None
        arguments = [self.guard.url_of(label), NAMESPACE, label, victim, self.intruder_log]
        return self._start("intruder", "faults.intruder", arguments)

    @property
    def intruder_log(self) -> Path:
        """What the intruder did, written when it has ended."""
        return self.folder / "logs" / "intruder.json"

    def _start(self, name: str, module: str, arguments: Sequence[object]) -> Process:
        armed = {point: {"do": self._deed, "token": str(self.token(point))} for point in FAILPOINTS}
        process = self.processes[name] = Process(
            name,
            module,
            arguments,
            log=self.folder / "logs" / f"{name}.log",
            environ={VARIABLE: json.dumps(armed)},
        )
        self._closing.callback(process.kill)
        process.start()
        return process

    def bring_up(
        self, *, rebuilders: int = 1, readers: int = 2, seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Start ``rebuilder-1``…, ``reader-1``…, commit a batch, and wait until it is served."""
        for number in range(rebuilders):
            self.start("rebuilder", f"rebuilder-{number + 1}")
        for number in range(readers):
            self.start("reader", f"reader-{number + 1}")
        self.commit()
        self.settle(seconds)

    def new_batch(self) -> tuple[str, tuple[str, ...]]:
        """The id and the entries of a batch that is not committed yet."""
        self._batches += 1
        name = f"{self._batches:05d}-{secrets.token_hex(4)}"
        ids = tuple(f"{name}-{number}" for number in range(3))
        self.recorder.committed[name] = ids
        return name, ids

    def commit(self, batch: tuple[str, Sequence[str]] | None = None) -> Commit:
        """Commit a batch, or a new one, from this process, which no failpoint ever hits."""
        name, ids = batch or self.new_batch()
        with self.producer.batch(COLLECTION, name) as changes:
            changes.upsert(ids, np.ones((len(ids), 2), dtype=np.float32))
        self.recorder.judge()  # the hardest moment for the judge: no reader serves this yet
        return changes.commit

    def states(self) -> dict[str, ReaderState]:
        """The state that every live reader reports."""
        found = members_of(self.connection, self.keys, ReaderState).known
        return {state.reader: state for state in found.values()}

    def settled(self) -> bool:
        """Whether everybody agrees on the newest generation, and nothing is left to do."""
        newest = self.store.newest_release()
        generation = self.catalog.collections.get(COLLECTION).generation
        readers = {name for name in self.processes if name.startswith("reader")}
        states = self.states()
        if newest is None or not readers <= states.keys():
            return False
        return (
            current_release(self.connection, self.keys) == newest.number
            and all(states[name].release == newest.number for name in readers)
            and all(
                self.store.version(name, version).covers[COLLECTION] == generation
                for name, version in newest.components.items()
            )
            and set(newest.components) == set(self.settings.components)
            and not any(vars(self.recorder.left()).values())
        )

    def settle(self, seconds: float = PATIENCE_SECONDS) -> float:
        """Wait until all is `settled`; how many seconds that took."""
        started = time.monotonic()
        self.wait(self.settled, seconds)
        took = time.monotonic() - started
        self.recorder.judge()  # after the clock was stopped: it looks at everything
        return took

    def wait(self, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for what another process does."""
        eventually(condition, seconds=seconds)

    def violations(self, *, given_up: int = 0) -> list[str]:
        """What the history of this bench, up to now, breaks.

        ``given_up``: how many components stay failed, because they cannot be built.
        """
        history = self.recorder.history()
        left = replace(history.left, retries=history.left.retries - given_up)
        return [str(violation) for violation in check(replace(history, left=left))]

    def close(self) -> None:
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _component_tables(components: Mapping[str, Mapping[str, Any]]) -> str:
    tables = ""
    for name, keys in components.items():
        lines = [f"{key} = {json.dumps(value)}" for key, value in {"kind": KIND, **keys}.items()]
        tables += "\n".join([f"[components.{name}]", *lines, ""])
    return tables


_MAXMEMORY = "48mb"
"""Less than is shipped, so that it is reached soon."""
_LIMITS = (
    *("proto-max-bulk-len", "client-query-buffer-limit", "maxmemory-clients"),
    *("client-output-buffer-limit", "lua-time-limit"),
)


def knows_access_lists(program: Path) -> bool:
    """Whether a server understands the list: Redis 6.2 does not."""
    version = subprocess.run(
        [program, "--version"], capture_output=True, check=True, text=True
    ).stdout
    return " v=6." not in version


class Guard:
    """Closes a server to everybody but the users of the list, and opens it again."""

    def __init__(self, url: str, namespace: str) -> None:
        self._socket = Path(unquote(url.removeprefix("unix://")))
        self._admin: Any = Redis.from_url(url, protocol=2)
        self._namespace = namespace

    def close(self) -> None:
        """Load the list and the limits; from here on every client logs in."""
        template = (DEPLOY / "redis" / "users.acl").read_text(encoding="utf-8")
        environ = {**PASSWORDS, "INDEXRELAY_NAMESPACE": self._namespace}
        lines = (render(template, environ) + ADMIN_LINE).splitlines()
        for line in sorted(lines, key=lambda each: each.startswith("user default")):
            _, *words = re.findall(r"\([^)]*\)|\S+", line)
            self._admin.execute_command("ACL", "SETUSER", *words)
        for line in (DEPLOY / "redis" / "redis.conf").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(" ")
            if name in _LIMITS:
                self._admin.config_set(name, value)
        self._admin.config_set("maxmemory", _MAXMEMORY)

    def open(self) -> None:
        """Let everybody in again, so that the server can be stopped."""
        self._admin.execute_command("ACL", "SETUSER", "default", "on", "nopass", "~*", "+@all")
        self._admin.close()

    def forbid(self, user: str) -> None:
        """Take a user's password away, and end its connections."""
        self._admin.execute_command("ACL", "SETUSER", user, "off")
        self._admin.execute_command("CLIENT", "KILL", "USER", user)

    def url_of(self, user: str) -> str:
        """How a user reaches the server."""
        return url_of(self._socket, user)


def event_of(commit: Commit) -> bytes:
    """The event that a job publishes of a commit."""
    completed = BatchCompleted(
        collection=commit.collection,
        epoch=commit.epoch,
        batch_id=commit.batch_id,
        generation=commit.generation,
    )
    return Event.of(completed, source="faults", time=datetime.now(UTC)).to_bytes()
