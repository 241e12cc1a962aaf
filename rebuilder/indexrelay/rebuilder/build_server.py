"""The process that builds are forked from: ``python -m indexrelay.rebuilder.build_server``.

Importing FAISS takes half a second, so it is imported once, here, and every build is a fork of this
process: a few milliseconds. Nothing else ever runs here; no thread, no OpenMP region, no database
connection exists that a fork could break.

It talks to its one client over a socket of message boundaries (``SOCK_SEQPACKET``), on a descriptor
that the client hands down. Each message is a JSON object:

====================  ==========================================================================
from the client       ``{"build": ID, "request": {…}, "memory_bytes": N | null, "niceness": N,
                      "result": PATH}`` or ``{"kill": ID}``
from a child          ``{"build": ID, "progress": SHARE}`` or, where it can leave no result,
                      ``{"build": ID, "error": WHY, "passing": BOOL}``
to the client         ``{"build": ID, "exit": CODE}``, CODE as in `subprocess`: -N for signal N
====================  ==========================================================================

When the client goes away the socket ends, and every build is killed; SIGINT and SIGTERM, which
terminals and service managers send to whole groups, are the client's to decide on. The children's
pids are watched through pidfds, so that nothing is ever reaped twice and no signal handler is
needed. What this process or a child prints goes into a pipe of the client
(`indexrelay.rebuilder.output`); the message of a build brings the end to write to. Each child leads
a process group, and what a child leaves behind in it is killed.
"""

import gc
import importlib
import io
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from indexrelay.components.build_memory import UNLIMITED, BuildMemory
from indexrelay.rebuilder.building import build_component
from indexrelay.rebuilder.limits import be_nice, die_with_parent, limit_memory
from indexrelay.rebuilder.requests import MESSAGE_BYTES, BuildRequest
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.failpoints import arm
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.passing import may_pass

_ERROR_CHARACTERS = 2000
"""What an error says beyond this goes to standard error only."""


class BuildServer:
    """Forks builds, and says how each one ended."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)
        self._pids: dict[str, int] = {}

    def serve(self) -> None:
        """Work until the client is gone."""
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._reap(build=key.data, pidfd=key.fd)
                elif not self._take_message():
                    self._kill_all()
                    return

    def _take_message(self) -> bool:
        try:
            raw, descriptors, _, _ = socket.recv_fds(self._channel, MESSAGE_BYTES, 1)
        except ConnectionResetError:  # the client died before it read all that was said to it
            return False
        if not raw:
            return False
        message = json.loads(raw)
        if "kill" in message:
            pid = self._pids.get(message["kill"])
            if pid is not None:  # not reaped yet, so the number is still this child's
                os.killpg(pid, signal.SIGKILL)
        else:
            try:
                self._fork(message, output=descriptors[0])
            finally:
                os.close(descriptors[0])
        return True

    def _fork(self, message: dict[str, Any], *, output: int) -> None:
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or no memory: this build fails, no other
            passing = may_pass(error, memory=False)
            _say(self._channel, message["build"], error=_why(error), passing=passing)
            _say(self._channel, message["build"], exit=1)
            return
        if pid == 0:
            self._selector.close()
            for own in (1, 2):  # whatever it prints is told with its component
                os.dup2(output, own)
            _run_child(self._channel, message, server=server)
        # Both sides do this, so that a kill cannot come before it is done.
        with suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)
        self._pids[message["build"]] = pid
        _say(self._channel, message["build"], pid=pid)
        self._selector.register(os.pidfd_open(pid), selectors.EVENT_READ, message["build"])

    def _reap(self, *, build: str, pidfd: int) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        _say(self._channel, build, exit=os.waitstatus_to_exitcode(_end(self._pids.pop(build))))

    def _kill_all(self) -> None:
        for pid in self._pids.values():
            _end(pid)


def _end(pid: int) -> int:
    """Kill a child's whole process group, and reap the child; its wait status.

    The number belongs to the child until it is reaped, so that nobody else is hit.
    """
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _say(channel: socket.socket, build: str, **what: object) -> None:
    with suppress(OSError):  # the client is gone: the next select says so
        channel.send(json.dumps({"build": build, **what}).encode())


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_ERROR_CHARACTERS]


def _run_child(channel: socket.socket, message: dict[str, Any], *, server: int) -> None:
    """Build, write the result beside the work folder, and end without any clean-up of the parent's.

    Never returns: what the parent had on its stack is not this process's to unwind.
    """
    code = 1
    try:
        os.setpgid(0, 0)
        die_with_parent(server)
        be_nice(message["niceness"])
        request = BuildRequest.model_validate(message["request"])
        allowed = message["memory_bytes"]
        memory = UNLIMITED if allowed is None else limit_memory(allowed)
        _build(channel, message["build"], request, Path(message["result"]), memory)
        code = 0
    except BaseException as error:  # noqa: BLE001 - nobody is above this frame who could be told
        passing = may_pass(error, memory=False)
        if not passing:
            traceback.print_exc()
        _say(channel, message["build"], error=_why(error), passing=passing)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _build(
    channel: socket.socket, build: str, request: BuildRequest, result: Path, memory: BuildMemory
) -> None:
    def progress(share: float) -> None:
        said = json.dumps({"build": build, "progress": float(share)})  # numpy's floats are no JSON
        with suppress(BlockingIOError):  # a progress message that does not fit is not worth a wait
            channel.send(said.encode(), socket.MSG_DONTWAIT)

    clock = SystemClock()
    catalog = Catalog.open(request.catalog_url.get_secret_value(), clock=clock)
    try:
        outcome = build_component(
            request,
            catalog=catalog,
            store=ArtifactStore(request.artifacts_dir),
            clock=clock,
            progress=progress,
            memory=memory,
        )
    finally:
        catalog.close()
    result.write_text(outcome.model_dump_json(), encoding="utf-8")


def main() -> None:
    """Import what builds need, then serve; arguments: the descriptor, then modules to import."""
    arm(os.environ)
    channel = socket.socket(fileno=int(sys.argv[1]))
    for ignored in (signal.SIGINT, signal.SIGTERM):  # in the children, too
        signal.signal(ignored, signal.SIG_IGN)
    for module in sys.argv[2:]:
        # What cannot be imported fails when it is built, with its own words.
        with suppress(Exception, SystemExit):
            importlib.import_module(module)
    # A pipe is written to when the buffer is full. What is in it must be in no child's buffer, and
    # what a child prints must not be lost when it is killed.
    sys.stdout.flush()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    gc.freeze()  # what was imported stays shared: the collector does not touch its pages
    BuildServer(channel).serve()


if __name__ == "__main__":
    main()
