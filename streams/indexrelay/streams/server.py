"""The embedded server: a Redis-compatible server of our own, for one machine and one data folder.

It listens on a unix socket that only this user can open, and on no TCP port. Its append-only file
is flushed every second, so a crash costs at most that: signals, which reconcile replaces.

**One folder, one server.** Starting is done under a lock on the folder. Who finds a server there
that answers uses it; who started it stops it, and for the others it is then gone as any server that
is stopped. Calling `start` again finds the next one, or becomes its starter.

**It does not outlive its starter**, however that ends (`indexrelay.streams.launched`). But it takes
a moment to flush and go, and a starter that is restarted at once must not start a second server on
the same files meanwhile. So every server process holds a lock on the file ``alive``, inherited at
its start and let go by the kernel at its end, and the next one waits for that.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.file_locks import LockWaits, holder_of, wait_for_lock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.private_files import make_private_folder, open_private, shut_to_others
from indexrelay.streams.errors import ServerStartError
from indexrelay.streams.launched import Launched
from indexrelay.streams.server_program import find_server
from indexrelay.streams.socket_path import (
    FOLDER,
    choose_socket,
    forget_socket,
    noted_socket,
    socket_url,
)

START_SECONDS: Final = 20.0
"""How long it may take until it answers: a large append-only file is read first."""
STOP_SECONDS: Final = 3.0
"""How long each of the three ways to stop may take: asked, told, killed."""
_POLL_SECONDS: Final = 0.005
_LOG_TAIL_BYTES: Final = 2000
_log = get_logger(__name__)


class EmbeddedServer:
    """The server of ``data_dir``; its files are in the folder ``redis`` there.

    Args:
        data_dir: made when it is missing.
        program: the server program; ``None``: what `find_server` finds.
        clock: for the time that a start may take.
    """

    def __init__(
        self, data_dir: Path, *, program: Path | None = None, clock: Clock | None = None
    ) -> None:
        self._folder = data_dir.absolute() / FOLDER
        self._program = program
        self._clock = clock or SystemClock()
        self._waits = LockWaits(self._clock)
        self._launched: Launched | None = None
        self._starter = 0

    @property
    def pid(self) -> int | None:
        """The process id of the server that this object started; ``None``: it started none."""
        return None if self._launched is None else self._launched.pid

    @property
    def log_file(self) -> Path:
        """What the server says."""
        return self._folder / "server.log"

    def start(self) -> str:
        """Start the server, or find the running one; returns its URL. Safe twice.

        Raises:
            NoServerError: no server program is installed.
            ServerStartError: it did not come up; the message holds the end of its log.
        """
        make_private_folder(self._folder)
        with self._locked():
            socket = noted_socket(self._folder)
            if socket is not None and _answers(socket):
                return socket_url(socket)
            socket = choose_socket(self._folder)
            self._launch(socket)
            return socket_url(socket)

    def stop(self) -> None:
        """Stop the server if this object started it; safe twice, before start and in a fork."""
        launched, self._launched = self._launched, None
        if launched is None or self._starter != os.getpid():
            return
        launched.expect_end()
        socket = noted_socket(self._folder)
        if launched.running and socket is not None:
            _ask_to_stop(socket)
        if not launched.wait(STOP_SECONDS):
            launched.terminate()
        if not launched.wait(STOP_SECONDS):
            _log.warning("server.killed", pid=launched.pid)
            launched.kill()
            launched.wait(STOP_SECONDS)
        _log.debug("server.stopped", exit_code=launched.exit_code)
        if socket is not None:
            self._clear_up(socket)

    def _clear_up(self, socket: Path) -> None:
        """Leave no folder of ours among the temporary files, unless another server uses it."""
        try:
            with self._locked():
                if not _answers(socket):
                    forget_socket(self._folder, socket)
        except ServerStartError as error:
            _log.debug("server.folder_locked", error=str(error))
        except FileNotFoundError:  # the whole data folder went with the server
            forget_socket(self._folder, socket)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone with the folder; the kernel lets go of the lock when its holder dies."""
        with open_private(self._folder / "lock", "wb") as lock:
            shut_to_others(lock.fileno())
            if not wait_for_lock(
                lock.fileno(),
                fcntl.LOCK_EX,
                name=str(self._folder / "lock"),
                waits=self._waits,
                clock=self._clock,
                most_seconds=START_SECONDS + STOP_SECONDS,
            ):
                who = holder_of(lock.fileno()) or "another process"
                reason = f"{who} holds the lock of that folder; see what it does, or end it"
                raise ServerStartError(self._folder, reason)
            yield

    def _launch(self, socket: Path) -> None:
        command = _command(self._program or find_server(), self._folder, socket)
        said_before = self.log_file.stat().st_size if self.log_file.exists() else 0
        deadline = self._clock.monotonic() + START_SECONDS
        with open_private(self._folder / "alive", "wb") as alive:
            shut_to_others(alive.fileno())
            self._wait_for_predecessor(alive.fileno(), deadline)
            try:
                launched = Launched(command, log_file=self.log_file, held_open=alive.fileno())
            except OSError as error:
                raise ServerStartError(self._folder, str(error)) from error
        while not _answers(socket):
            ended = launched.wait(_POLL_SECONDS)
            if not ended and self._clock.monotonic() < deadline:
                continue
            launched.expect_end()
            launched.kill()
            launched.wait(STOP_SECONDS)
            reason = f"it ended with {launched.exit_code}" if ended else "it does not answer"
            raise ServerStartError(self._folder, reason, log_tail=self._log_tail(said_before))
        self._launched, self._starter = launched, os.getpid()
        _log.info("server.started", program=command[0], pid=launched.pid, socket=str(socket))

    def _wait_for_predecessor(self, alive: int, deadline: float) -> None:
        """Take the lock that every server process of this folder holds until it has ended."""
        pause = threading.Event()
        while True:
            try:
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if self._clock.monotonic() >= deadline:
                    reason = "another one still runs there and does not answer; end it first"
                    raise ServerStartError(self._folder, reason) from error
                pause.wait(_POLL_SECONDS)
            else:
                return

    def _log_tail(self, said_before: int) -> str:
        """The end of what this start added to the log."""
        said = self.log_file.read_bytes()[said_before:]
        return said[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()


def _command(program: Path, folder: Path, socket: Path) -> list[str]:
    """The program and its settings; everything else stays as the server has it."""
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "pidfile": str(folder / "server.pid"),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",  # the append-only file holds it all
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return [str(program)] + [
        part for key, value in settings.items() for part in (f"--{key}", value)
    ]


def _client(socket: Path) -> Redis:
    return Redis(
        unix_socket_path=str(socket),
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=STOP_SECONDS,
        socket_connect_timeout=STOP_SECONDS,
    )


def _answers(socket: Path) -> bool:
    """Whether a server listens there and is ready: not while it still loads its file."""
    with _client(socket) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False


def _ask_to_stop(socket: Path) -> None:
    """SHUTDOWN without a snapshot; the append-only file is flushed."""
    with _client(socket) as client:
        try:
            client.shutdown(nosave=True)
        except RedisError as error:
            # A stalled server, or one that ended while we asked: SIGTERM is next.
            _log.debug("server.shutdown_unanswered", error=str(error))
