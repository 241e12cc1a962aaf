"""A whole installation of processes, as a person starts them: a rebuilder, instances of a reader
service, and the admin service where it is wanted, by their commands.

They run in a temporary folder, on a server that is given, with a catalog in SQLite. What they log
is kept there until the end, and its last lines are shown where something went wrong.
"""

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from indexrelay.producers import Producer
from indexrelay.schemas import load_settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from measuring.machine import rss

COMMAND = str(Path(sys.executable).with_name("indexrelay"))
REBUILDER, ADMIN = "builder", "admin"
_PATIENCE_SECONDS = 600.0
_LOOK_SECONDS = 0.05
_SHOWN_LINES = 20


class NotReadyError(RuntimeError):
    """Raised when something does not come within the time that a busy machine may take for it."""


class Instances:
    """The processes, by their names, which may be killed and started again."""

    def __init__(self, folder: Path, config: str, names: tuple[str, ...], stack: ExitStack) -> None:
        """Start them.

        Args:
            folder: of everything.
            config: the settings, in TOML.
            names: of the readers; the rebuilder is `REBUILDER`.
            stack: what ends them.
        """
        self._folder = folder
        self._config = folder / "indexrelay.toml"
        self._config.write_text(config, encoding="utf-8")
        self._stack = stack
        self.settings = load_settings(self._config)
        self.addresses: Mapping[str, str] = {
            name: f"http://127.0.0.1:{port}"
            for name, port in zip(names, free_ports(len(names)), strict=True)
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.store = ArtifactStore(self.settings.artifacts_dir)
        self.producer = stack.enter_context(Producer.open(self.settings))
        self.catalog = Catalog.open(self.settings.catalog_url)
        stack.callback(self.catalog.close)
        for name in self.names:
            self.start(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the rebuilder and the readers."""
        return (REBUILDER, *self.addresses)

    def start(self, name: str) -> None:
        """Start one, which does not run; `ADMIN` for the admin service."""
        if name == REBUILDER:
            role = ["rebuilder", "--id", name]
        elif name == ADMIN:
            role = ["admin"]
        else:
            role = ["reader", "--id", name, "--port", self.addresses[name].rpartition(":")[2]]
        with self._log(name).open("ab") as log:
            process = subprocess.Popen(
                [COMMAND, *role, "--config", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        self._processes[name] = process
        self._stack.callback(_end, process)

    def kill(self, name: str) -> None:
        """End one with SIGKILL."""
        process = self._processes[name]
        process.kill()
        process.wait()

    def ended(self) -> list[str]:
        """Which of them have ended by themselves, or were killed and not started again."""
        return [name for name, each in self._processes.items() if each.poll() is not None]

    def memory(self, name: str) -> int:
        """Bytes that one has resident."""
        return rss(self._processes[name].pid)

    def is_there(self, name: str) -> bool:
        """Whether a reader answers, with something to serve or without."""
        try:
            return httpx.get(f"{self.addresses[name]}/health", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def start_admin(self) -> str:
        """Start the admin service, on the port that the settings give it; its address."""
        address = f"http://{self.settings.admin.host}:{self.settings.admin.port}"
        self.start(ADMIN)

        def answers() -> bool:
            try:
                return httpx.get(f"{address}/api/admin/health", trust_env=False).is_success
            except httpx.HTTPError:
                return False

        self.wait("the admin service to answer", answers)
        return address

    def await_all(self) -> None:
        """Wait until every reader answers; raises `NotReadyError`."""
        self.wait("readers to answer", lambda: all(map(self.is_there, self.addresses)))

    def release_all(self, collection: str) -> int:
        """Have everything released that is committed, and served; the number of the release.

        Raises:
            NotReadyError: it does not come to that.
        """
        names = list(self.settings.components)
        self.producer.request_rebuild(names, reason="benchmark")

        def released() -> bool:
            newest = self.store.newest_release()
            generation = self.catalog.collections.get(collection).generation
            return newest is not None and all(
                name in newest.components
                and self.store.version(name, newest.components[name]).covers[collection]
                == generation
                for name in names
            )

        self.wait("a release of everything", released)
        newest = self.store.newest_release()
        number = 0 if newest is None else newest.number

        def serves(address: str) -> bool:
            state = httpx.get(f"{address}/v1/state", trust_env=False).json()
            return bool(state["release"] >= number)

        self.wait("readers to serve it", lambda: all(map(serves, self.addresses.values())))
        return number

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for what another process does; raises `NotReadyError`."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while not condition():
            if time.monotonic() > end or self.ended():
                ended = f"; ended: {', '.join(self.ended())}" if self.ended() else ""
                raise NotReadyError(f"waited in vain for {what}{ended}")
            time.sleep(_LOOK_SECONDS)

    def last_words(self) -> str:
        """The last lines that each of them logged."""
        return "\n".join(
            f"── {name}\n" + "\n".join(self._log(name).read_text().splitlines()[-_SHOWN_LINES:])
            for name in self._processes
        )

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


@contextmanager
def instances(url: str, tables: str, *names: str) -> Iterator[Instances]:
    """An installation that runs for as long as the ``with`` lasts.

    Args:
        url: of the Redis-compatible server.
        tables: more of the settings, in TOML.
        names: of the readers.
    """
    with tempfile.TemporaryDirectory(prefix="ir-") as folder, ExitStack() as stack:
        config = f'data_dir = "data"\n[redis]\nurl = "{url}"\n{tables}'
        running = Instances(Path(folder), config, names, stack)
        try:
            running.await_all()
            yield running
        except Exception as error:
            error.add_note(running.last_words())
            raise


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in found]
