"""Builds in child processes: a crash, a kill or a hang fails one component and nothing else.

The other side is `indexrelay.rebuilder.builds.server`. A server that died is started again by the
next build, and so is a child that had more to build.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indexrelay.components.errors import KindNotFoundError
from indexrelay.components.registry import kind_class
from indexrelay.rebuilder.builds import (
    BuildCancelledError,
    BuildDiedError,
    BuildError,
    BuildRequest,
    BuildTimedOutError,
    Progress,
)
from indexrelay.rebuilder.builds.process import MESSAGE_BYTES, Output, death_by_signal
from indexrelay.schemas.clock import SupervisedThread
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import ComponentResult
from indexrelay.schemas.progress import BuildStep
from indexrelay.schemas.settings import Settings
from indexrelay.storage.urls import driver_url

_log = get_logger(__name__)
_STOP_SECONDS = 5.0
"""How long the build server may take to kill its children and end."""


def modules_to_preload(settings: Settings) -> list[str]:
    """What the build server imports before it forks: the kinds in use, and the database driver.

    Raises:
        MissingExtraError: the catalog is in PostgreSQL and psycopg is not installed.
    """
    modules: set[str] = set()
    for definition in settings.components.values():
        try:
            kind = kind_class(definition.kind)
        except KindNotFoundError:
            continue  # its build fails with that error
        modules |= {kind.__module__, *kind.preload}
    if driver_url(settings.catalog_url).drivername == "postgresql+psycopg":
        modules.add("psycopg")
    return sorted(modules)


@dataclass(kw_only=True)
class _Child:
    """One child process, as the client sees it."""

    name: str
    channel: socket.socket
    """To the server that it was forked from."""
    requests: socket.socket
    """To the child itself."""
    progress: Progress
    """For the build that runs now."""
    pid: int | None = None
    """It leads a process group; ``None``: not forked yet."""
    idle: threading.Event = field(default_factory=threading.Event)
    """Its last request is built, or it has ended."""
    built: bool = False
    """Whether its last request has left a result."""
    ended: threading.Event = field(default_factory=threading.Event)
    exit_code: int | None = None
    """``None`` after ``ended``: the server ended first."""
    error: str | None = None
    """Why the child could leave no result, where it could send that."""
    transient: bool = False
    """Whether that cause is transient."""

    def note(self, message: dict[str, Any]) -> None:
        """Take one message of the server about this child."""
        if "progress" in message:
            try:
                self.progress(BuildStep(message["step"]), message["progress"])
            except Exception as error:  # noqa: BLE001 - every other build depends on this thread
                _log.warning("build.progress_lost", error=f"{type(error).__name__}: {error}")
        elif "pid" in message:
            self.pid = message["pid"]
        elif "built" in message:
            self.built = True
            self.idle.set()
        elif "error" in message:
            self.error, self.transient = message["error"], message["transient"]
        else:
            self.exit_code = message["exit"]
            self.end()

    def end(self) -> None:
        """The process has ended."""
        self.ended.set()
        self.idle.set()

    def close_requests(self) -> None:
        """Send no more requests: the child ends when it has built what it was sent."""
        with suppress(OSError):  # it has ended
            self.requests.shutdown(socket.SHUT_WR)


class ForkingRunner:
    """A `BuildRunner` that forks builds off a process that has everything imported."""

    parallel = True

    def __init__(self, *, preload: Sequence[str], threads: int, niceness: int = 10) -> None:
        """Prepare; nothing is started yet.

        Args:
            preload: modules to import before forking.
            threads: of the numeric libraries.
            niceness: of builds, as in nice(2).
        """
        self._preload = tuple(preload)
        self._niceness = niceness
        self._threads = threads
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._listener: SupervisedThread | None = None
        self._channel: socket.socket | None = None
        self._children: dict[str, _Child] = {}
        self._stopped = False

    @property
    def server_pid(self) -> int | None:
        """The build server's process id; ``None``: it was not started yet."""
        return self._server.pid if self._server is not None else None

    def start(self) -> None:
        """Start the server, unless it runs; nothing once `stop` was called."""
        with self._lock:
            if not self._stopped:
                self._ensure_server()

    @contextmanager
    def session(self, components: Sequence[str]) -> Iterator["_ChildSession"]:
        """Builds in one child after the other; see `BuildRunner`."""
        session = _ChildSession(self, components)
        try:
            yield session
        finally:
            session.close()

    def stop(self) -> None:
        """Kill what is being built, and the server; its waiting callers get an error."""
        with self._lock:
            self._stopped = True
            server, channel, listener = self._server, self._channel, self._listener
            self._server = self._channel = None
        if channel is not None:
            with suppress(OSError):  # closed already: the server died a moment ago
                channel.shutdown(socket.SHUT_RDWR)
        _reap(server)
        if listener is not None:
            listener.join()  # what the server printed last is in the log when this returns

    def fork(self, progress: Progress) -> _Child:
        """A new child, which waits for its first request.

        Raises:
            BuildCancelledError: the runner was stopped.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        name = secrets.token_hex(8)
        with theirs, ExitStack() as unless_forked, self._lock:
            unless_forked.enter_context(ours)
            if self._stopped:
                raise BuildCancelledError("the rebuilder is stopping")
            channel = self._ensure_server()
            order = {"child": name, "niceness": self._niceness}
            _send(channel, order, descriptor=theirs.fileno())
            child = _Child(name=name, channel=channel, requests=ours, progress=progress)
            self._children[name] = child  # before the lock is free, and with it its messages
            unless_forked.pop_all()
        return child

    def kill(self, child: _Child) -> None:
        """End a child at once; it is over when ``child.ended`` is set."""
        with self._lock:
            if self._channel is not None:
                _send(self._channel, {"kill": child.name})

    def forget(self, child: _Child) -> None:
        """Keep nothing of a child that has ended."""
        with self._lock:
            self._children.pop(child.name, None)
        child.requests.close()

    def death(self, child: _Child, workdir: Path, memory_bytes: int | None) -> BuildError:
        """The error for a child that ended and left no result."""
        exit_code = child.exit_code
        if self._stopped:
            return BuildCancelledError("the rebuilder stopped during the build")
        if child.error is not None:
            return BuildDiedError(child.error, transient=child.transient)
        if exit_code is None:
            # Mostly the kernel killed it for lack of memory; a build of its own cannot have.
            return BuildDiedError(
                "the build server died; the next build starts another one", transient=True
            )
        if exit_code >= 0:
            return BuildDiedError(
                f"the build's process ended by itself, with exit code {exit_code}"
            )
        return death_by_signal(-exit_code, workdir, memory_bytes=memory_bytes)

    def _ensure_server(self) -> socket.socket:
        """The channel to a live server; the caller holds the lock."""
        if self._channel is not None and self._server is not None and self._server.poll() is None:
            return self._channel
        _reap(self._server)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output = Output(process="build server")
        with theirs:
            threads = str(self._threads)
            self._server = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "indexrelay.rebuilder.builds.server",
                    str(theirs.fileno()),
                    *self._preload,
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output.descriptor,
                stderr=output.descriptor,
                # What a terminal sends to the rebuilder is not for its builds, and their niceness
                # has to count against readers.
                start_new_session=True,
                env={
                    **os.environ,
                    # A user's kind is found where this process found it, and nowhere else.
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                    "OMP_NUM_THREADS": threads,
                    "OPENBLAS_NUM_THREADS": threads,
                    # A thread that waits for another must not spin on a processor that queries
                    # need: on a busy host spinning also makes a build take twice as long.
                    "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
                    # NumPy's threads spin as well: for 2**26 cycles, unless another power is given.
                    "OPENBLAS_THREAD_TIMEOUT": os.environ.get("OPENBLAS_THREAD_TIMEOUT", "4"),
                },
            )
        self._channel = ours
        server = self._server
        self._listener = SupervisedThread(
            lambda: self._listen(ours, server, output), name="indexrelay-builds", wait=None
        )
        self._listener.start()
        return ours

    def _listen(
        self, channel: socket.socket, server: "subprocess.Popen[bytes]", output: Output
    ) -> None:
        """Give each message of the server to its child, until the server has ended."""
        try:
            with output:
                try:
                    with channel:
                        while raw := _received(channel):
                            message = json.loads(raw)
                            with self._lock:
                                child = self._children.get(message["child"])
                            if child is not None:
                                child.note(message)
                finally:
                    # A server that is to end kills its children first. Until it has ended they may
                    # still write, and the caller of a build removes what they wrote.
                    _reap(server)
        finally:
            self._abandon(channel)

    def _abandon(self, channel: socket.socket) -> None:
        """A server has ended, and with it each of its children that had not."""
        with self._lock:
            if self._channel is channel:
                self._channel = None
            lost = [
                child
                for child in self._children.values()
                if child.channel is channel and not child.ended.is_set()
            ]
            if lost and not self._stopped:
                _log.error("build_server.died", builds=len(lost))
        for child in lost:
            if child.pid is not None:
                # It died with its server; what it started itself did not.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)
            child.end()


class _ChildSession:
    """A `BuildSession`: a child that builds each request, or a new one where it died."""

    def __init__(self, runner: ForkingRunner, components: Sequence[str]) -> None:
        self._runner = runner
        self._last = components[-1]
        self._child: _Child | None = None

    def run(
        self,
        request: BuildRequest,
        *,
        timeout_seconds: float,
        memory_bytes: int | None,
        progress: Progress,
    ) -> ComponentResult:
        """Build in the child; see `BuildSession`."""
        # Not `with_suffix`: it cuts off what follows a dot, and host names have dots.
        result = request.workdir.with_name(f"{request.workdir.name}.result")
        message = {
            "request": json.loads(request.to_json()),
            "memory_bytes": memory_bytes,
            "result": str(result),
        }
        with Output(component=request.component) as output, _removing(result):
            child = self._ask(message, output.descriptor, progress)
            over = child.idle
            if request.component == self._last:
                child.close_requests()
                over = child.ended  # and with it everything that it started
            if not over.wait(timeout_seconds):
                self._runner.kill(child)
                child.ended.wait()
                raise BuildTimedOutError(timeout_seconds)
            if child.built and result.exists():
                return ComponentResult.model_validate_json(result.read_bytes())
            child.ended.wait()
            # While the work folder is there: it shows whether the disk was full.
            raise self._runner.death(child, request.workdir, memory_bytes)

    def _ask(self, message: dict[str, object], output: int, progress: Progress) -> _Child:
        """Send the request to the child that is there, or to a new one."""
        child = self._child
        if child is not None:
            child.progress, child.built = progress, False
            child.idle.clear()
            if not child.ended.is_set():
                with suppress(OSError):  # it died just now
                    _send(child.requests, message, descriptor=output)
                    return child
            self.close()
        child = self._child = self._runner.fork(progress)
        with suppress(OSError):  # it died at once; the caller waits for its end in any case
            _send(child.requests, message, descriptor=output)
        return child

    def close(self) -> None:
        """Return when nothing of the child is left; safe twice."""
        child, self._child = self._child, None
        if child is None:
            return
        child.close_requests()
        if not child.ended.wait(_STOP_SECONDS):  # it only has to close its snapshots
            self._runner.kill(child)
            child.ended.wait()
        self._runner.forget(child)


@contextmanager
def _removing(file: Path) -> Iterator[None]:
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _reap(server: "subprocess.Popen[bytes] | None") -> None:
    """Wait for a server whose channel is closed; one that does not end is killed."""
    if server is None:
        return
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _send(
    channel: socket.socket, message: dict[str, object], *, descriptor: int | None = None
) -> None:
    """Send a message, and with it a descriptor."""
    raw = json.dumps(message).encode()
    if len(raw) > MESSAGE_BYTES:
        raise BuildError(
            f"the component's definition takes {len(raw):,} bytes; {MESSAGE_BYTES:,} is the most"
        )
    socket.send_fds(channel, [raw], [] if descriptor is None else [descriptor])


def _received(channel: socket.socket) -> bytes:
    try:
        return channel.recv(MESSAGE_BYTES)
    except OSError:  # shut down by `stop`
        return b""
