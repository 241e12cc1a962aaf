"""The process that builds are forked from: ``python -m indexrelay.rebuilder.builds.server``.

Importing FAISS takes half a second, so it is imported once, here, and a build is a fork of this
process: a few milliseconds. Nothing else runs here; no thread, no OpenMP region, no database
connection exists that a fork could break.

It talks to its one client over a socket of message boundaries (``SOCK_SEQPACKET``), on a descriptor
that the client hands down. Each message is a JSON object:

====================  ==========================================================================
from the client       ``{"child": ID, "niceness": N}``, with the child's end of a socket of its
                      own, or ``{"kill": ID}``
from a child          ``{"child": ID, "step": STEP, "progress": SHARE | null}``,
                      ``{"child": ID, "built": true}`` or, where it can leave no result,
                      ``{"child": ID, "error": WHY, "transient": BOOL}``
to the client         ``{"child": ID, "pid": N}``; ``{"child": ID, "exit": CODE}``, CODE as in
                      `subprocess`: -N for signal N
on the child's own    ``{"request": {…}, "memory_bytes": N | null, "result": PATH}``, with the
socket                descriptor that this build is to write its output to
====================  ==========================================================================

A child builds each request, one component after another and all from the same snapshots, until its
socket ends. Mostly that is one; `indexrelay.rebuilder.builds.job` has the cases where it is more.

When the client ends, the socket ends, and every build is killed. SIGINT and SIGTERM, which
terminals and service managers send to whole groups, are ignored: the client decides. The children's
pids are watched through pidfds, so that nothing is reaped twice and no signal handler is
needed. What this process or a child prints goes into a pipe of the client
(`indexrelay.rebuilder.builds.process`). Each child leads a process group, and what a child leaves
behind in it is killed.
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
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from indexrelay.components.kind import Goal
from indexrelay.rebuilder.builds import BuildRequest
from indexrelay.rebuilder.builds.job import Snapshots, build_component
from indexrelay.rebuilder.builds.process import (
    MESSAGE_BYTES,
    Usage,
    die_with_parent,
    group_stands_back,
    limit_memory,
)
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.failpoints import arm
from indexrelay.schemas.progress import BuildStep
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.errors import is_transient

_ERROR_CHARACTERS = 2000
"""The rest of an error goes to standard error only."""
_LEAST_PRIORITY = 19
"""As in nice(2): an improvement takes what every other process leaves."""


class BuildServer:
    """Forks builds, and reports how each one ended."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)
        self._pids: dict[str, int] = {}
        self._niceness: int | None = None
        """That of the session, once it is set."""

    def serve(self) -> None:
        """Work until the client has ended."""
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._reap(child=key.data, pidfd=key.fd)
                elif not self._take_message():
                    for pid in self._pids.values():
                        _end(pid)
                    return

    def _take_message(self) -> bool:
        try:
            raw, descriptors, _, _ = socket.recv_fds(self._channel, MESSAGE_BYTES, 1)
        except ConnectionResetError:  # the client died before it read all that was sent to it
            return False
        if not raw:
            return False
        message = json.loads(raw)
        if "kill" in message:
            pid = self._pids.get(message["kill"])
            if pid is not None:  # not reaped yet, so the number is still this child's
                os.killpg(pid, signal.SIGKILL)
        else:
            with socket.socket(fileno=descriptors[0]) as requests:
                self._fork(message, requests)
        return True

    def _fork(self, message: dict[str, Any], requests: socket.socket) -> None:
        server = os.getpid()
        if message["niceness"] != self._niceness and group_stands_back(message["niceness"]):
            self._niceness = message["niceness"]
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or no memory: this build fails, no other
            _send_error(self._channel, message["child"], error)
            _send(self._channel, message["child"], exit=1)
            return
        if pid == 0:
            self._selector.close()
            _run_child(self._channel, message, requests, server=server)
        # Both sides do this, so that a kill cannot come before it is done.
        with suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)
        self._pids[message["child"]] = pid
        _send(self._channel, message["child"], pid=pid)
        self._selector.register(os.pidfd_open(pid), selectors.EVENT_READ, message["child"])

    def _reap(self, *, child: str, pidfd: int) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        _send(self._channel, child, exit=os.waitstatus_to_exitcode(_end(self._pids.pop(child))))


def _end(pid: int) -> int:
    """Kill a child's whole process group, and reap the child; its wait status.

    The number belongs to the child until it is reaped, so that no other process is hit.
    """
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _send(channel: socket.socket, child: str, **what: object) -> None:
    with suppress(OSError):  # the client has ended: the next select shows it
        channel.send(json.dumps({"child": child, **what}).encode())


def _send_error(channel: socket.socket, child: str, error: BaseException) -> bool:
    """Send why a child leaves no result; whether that is transient."""
    transient = is_transient(error, memory=False)
    sentence = f"{type(error).__name__}: {error}"[:_ERROR_CHARACTERS]
    _send(channel, child, error=sentence, transient=transient)
    return transient


def _run_child(
    channel: socket.socket, message: dict[str, Any], requests: socket.socket, *, server: int
) -> None:
    """Build each request, and end without any clean-up of the parent's.

    Never returns: what the parent had on its stack is not this process's to unwind.
    """
    code = 1
    try:
        os.setpgid(0, 0)
        die_with_parent(server)
        # At the processor, and at the disk: where nobody set an I/O priority it follows from the
        # niceness, see ioprio_set(2).
        os.nice(message["niceness"])
        _Child(channel, message["child"], requests).serve()
        code = 0
    except BaseException as error:  # noqa: BLE001 - no frame above this one could report it
        if not _send_error(channel, message["child"], error):
            traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


class _Child:
    """Builds each request, until there are no more."""

    def __init__(self, channel: socket.socket, name: str, requests: socket.socket) -> None:
        self._channel = channel
        self._name = name
        self._requests = requests
        self._clock = SystemClock()

    def serve(self) -> None:
        """Build; the catalog and the snapshots stay open from the first build to the last."""
        with ExitStack() as stack:
            snapshots: Snapshots | None = None
            servers = [(own, os.dup(own)) for own in (1, 2)]
            while True:
                raw, descriptors, _, _ = socket.recv_fds(self._requests, MESSAGE_BYTES, 1)
                if not raw:
                    return
                output = descriptors[0]
                for own, _ in servers:  # what it prints is logged with its component
                    os.dup2(output, own)
                os.close(output)
                message = json.loads(raw)
                request = BuildRequest.model_validate(message["request"])
                if request.goal is Goal.IMPROVEMENT:  # of a child of its own
                    os.nice(_LEAST_PRIORITY)
                memory = limit_memory(message["memory_bytes"], threads=request.threads)
                if snapshots is None:
                    url = request.catalog_url.get_secret_value()
                    catalog = Catalog.open(url, clock=self._clock)
                    stack.callback(catalog.close)
                    snapshots = stack.enter_context(Snapshots(catalog))
                usage = Usage()
                result = build_component(
                    request,
                    snapshots=snapshots,
                    store=ArtifactStore(
                        request.artifacts_dir,
                        group_reads=request.artifacts_group_readable,
                        marks=request.artifacts_marks,
                    ),
                    clock=self._clock,
                    progress=self._progress,
                    memory=memory,
                )
                written = usage.of(result).model_dump_json()
                Path(message["result"]).write_text(written, encoding="utf-8")
                _flush()
                for own, kept in servers:  # its output ends here, and is not waited for
                    os.dup2(kept, own)
                _send(self._channel, self._name, built=True)

    def _progress(self, step: BuildStep, share: float | None) -> None:
        done = None if share is None else float(share)  # numpy's are no JSON
        message = json.dumps({"child": self._name, "step": step, "progress": done})
        with suppress(BlockingIOError):  # a progress message that does not fit is not worth a wait
            self._channel.send(message.encode(), socket.MSG_DONTWAIT)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def main() -> None:
    """Import what builds need, then serve; arguments: the descriptor, then modules to import."""
    arm(os.environ)
    channel = socket.socket(fileno=int(sys.argv[1]))
    for ignored in (signal.SIGINT, signal.SIGTERM):  # in the children, too
        signal.signal(ignored, signal.SIG_IGN)
    for module in sys.argv[2:]:
        # What cannot be imported fails when it is built, with its own error.
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
