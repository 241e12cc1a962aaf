"""Builds in child processes: a crash, a kill or a hang fails one component and nothing else.

The other side is `indexrelay.rebuilder.build_server`. A server that died is started again by the
next build.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indexrelay.rebuilder.building import Progress
from indexrelay.rebuilder.death import killed
from indexrelay.rebuilder.errors import (
    BuildCancelledError,
    BuildDiedError,
    BuildError,
    BuildTimedOutError,
)
from indexrelay.rebuilder.output import Output
from indexrelay.rebuilder.requests import MESSAGE_BYTES, BuildRequest
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import ComponentResult
from indexrelay.schemas.supervised_thread import SupervisedThread

_log = get_logger(__name__)
_STOP_SECONDS = 5.0
"""How long the build server may take to kill its children and go."""


@dataclass(kw_only=True)
class _Build:
    """One running build, as the client sees it."""

    channel: socket.socket
    """To the server that runs it."""
    progress: Progress
    pid: int | None = None
    """The child, which leads a process group; ``None``: not forked yet."""
    ended: threading.Event = field(default_factory=threading.Event)
    exit_code: int | None = None
    """``None`` after ``ended``: the server went away first."""
    error: str | None = None
    """What kept the child from a result, where it could still say so."""
    passing: bool = False
    """Whether that may pass."""


class ForkingRunner:
    """Runs each build in a fork of a process that has everything imported."""

    parallel = True

    def __init__(self, *, preload: Sequence[str], threads: int, niceness: int = 10) -> None:
        """Prepare; nothing is started yet.

        Args:
            preload: modules to import before forking.
            threads: of the numeric libraries.
            niceness: how far a build stands back behind other processes, as in nice(2).
        """
        self._preload = tuple(preload)
        self._niceness = niceness
        self._threads = threads
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._builds: dict[str, _Build] = {}
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

    def run(
        self,
        request: BuildRequest,
        *,
        timeout_seconds: float,
        memory_bytes: int | None,
        progress: Progress,
    ) -> ComponentResult:
        """Build in a child; see `BuildRunner`."""
        name = secrets.token_hex(8)
        # Not `with_suffix`: it cuts off what follows a dot, and host names have dots.
        result = request.workdir.with_name(f"{request.workdir.name}.result")
        message = {
            "build": name,
            "request": json.loads(request.to_json()),
            "memory_bytes": memory_bytes,
            "niceness": self._niceness,
            "result": str(result),
        }
        with Output(component=request.component) as output, self._forgetting(name, result):
            with self._lock:
                if self._stopped:
                    raise BuildCancelledError("the rebuilder is stopping")
                channel = self._ensure_server()
                build = self._builds[name] = _Build(channel=channel, progress=progress)
                _send(channel, message, output=output.descriptor)
            if not build.ended.wait(timeout_seconds):
                self._kill(name)
                build.ended.wait()
                raise BuildTimedOutError(timeout_seconds)
            if build.exit_code == 0 and result.exists():
                return ComponentResult.model_validate_json(result.read_bytes())
            # While the work folder is there: it tells whether the disk was full.
            raise self._death(build, request.workdir, memory_bytes)

    @contextmanager
    def _forgetting(self, name: str, result: Path) -> Iterator[None]:
        """Keep nothing of a build that is over."""
        try:
            yield
        finally:
            with self._lock:
                self._builds.pop(name, None)
            result.unlink(missing_ok=True)

    def stop(self) -> None:
        """Kill what is being built, and the server; its waiting callers get an error."""
        with self._lock:
            self._stopped = True
            server, channel = self._server, self._channel
            self._server = self._channel = None
        if channel is not None:
            with suppress(OSError):  # closed already: the server died a moment ago
                channel.shutdown(socket.SHUT_RDWR)
        _reap(server)

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
                    "indexrelay.rebuilder.build_server",
                    str(theirs.fileno()),
                    *self._preload,
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output.descriptor,
                stderr=output.descriptor,
                process_group=0,  # what a terminal sends to the rebuilder is not for its builds
                env={
                    **os.environ,
                    # A user's kind is found where this process found it, and nowhere else.
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                    "OMP_NUM_THREADS": threads,
                    "OPENBLAS_NUM_THREADS": threads,
                    # A thread that waits for the other must not spin on a processor that queries
                    # need: on a busy host spinning also makes a build take twice as long.
                    "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
                },
            )
        self._channel = ours
        server = self._server
        SupervisedThread(
            lambda: self._listen(ours, server, output), name="indexrelay-builds", wait=None
        ).start()
        return ours

    def _listen(
        self, channel: socket.socket, server: "subprocess.Popen[bytes]", output: Output
    ) -> None:
        """Pass on what the server says, until it is gone."""
        try:
            with channel:
                while raw := _received(channel):
                    message = json.loads(raw)
                    with self._lock:
                        build = self._builds.get(message["build"])
                    if build is not None:
                        _tell(build, message)
        finally:
            # A server that is told to go kills its children first. Until it has gone they may still
            # write, and whoever waits for a build clears up after it.
            try:
                with output:
                    _reap(server)
            finally:
                self._abandon(channel)

    def _abandon(self, channel: socket.socket) -> None:
        """A server is gone, and with it each of its builds that had not ended."""
        with self._lock:
            if self._channel is channel:
                self._channel = None
            lost = [
                build
                for build in self._builds.values()
                if build.channel is channel and not build.ended.is_set()
            ]
            if lost and not self._stopped:
                _log.error("build_server.died", builds=len(lost))
        for build in lost:
            if build.pid is not None:
                # It died with its server; what it started itself did not.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(build.pid, signal.SIGKILL)
            build.ended.set()

    def _kill(self, name: str) -> None:
        with self._lock:
            if self._channel is not None:
                _send(self._channel, {"kill": name})

    def _death(self, build: _Build, workdir: Path, memory_bytes: int | None) -> BuildError:
        """The error for a child that left no result."""
        exit_code = build.exit_code
        if self._stopped:
            return BuildCancelledError("the rebuilder stopped during the build")
        if build.error is not None:
            return BuildDiedError(build.error, passing=build.passing)
        if exit_code is None:
            # Mostly the kernel's doing, for want of memory; no build of its own can have done it.
            return BuildDiedError(
                "the build server died; the next build starts another one", passing=True
            )
        if exit_code >= 0:
            return BuildDiedError(
                f"the build's process ended by itself, with exit code {exit_code}"
            )
        return killed(-exit_code, workdir, memory_bytes=memory_bytes)


def _tell(build: _Build, message: dict[str, Any]) -> None:
    """One message of the server, to the build that it concerns."""
    if "progress" in message:
        try:
            build.progress(message["progress"])
        except Exception as error:  # noqa: BLE001 - every other build depends on this thread
            _log.warning("build.progress_lost", error=f"{type(error).__name__}: {error}")
    elif "pid" in message:
        build.pid = message["pid"]
    elif "error" in message:
        build.error, build.passing = message["error"], message.get("passing", False)
    else:
        build.exit_code = message["exit"]
        build.ended.set()


def _reap(server: "subprocess.Popen[bytes] | None") -> None:
    """Wait for a server whose channel is closed; one that does not go is killed."""
    if server is None:
        return
    try:
        server.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _send(channel: socket.socket, message: dict[str, object], *, output: int | None = None) -> None:
    """Send a message, and with it the descriptor that its build is to write its output to."""
    raw = json.dumps(message).encode()
    if len(raw) > MESSAGE_BYTES:
        raise BuildError(
            f"the component's definition takes {len(raw):,} bytes; {MESSAGE_BYTES:,} is the most"
        )
    socket.send_fds(channel, [raw], [] if output is None else [output])


def _received(channel: socket.socket) -> bytes:
    try:
        return channel.recv(MESSAGE_BYTES)
    except OSError:  # shut down by `stop`
        return b""
