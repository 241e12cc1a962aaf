"""The process that builds are forked from: ``python -m indexrelay.rebuilder.build_server``.

Importing FAISS takes half a second, so it is imported once, here, and every build is a fork of this
process: a few milliseconds. Nothing else ever runs here; no thread, no OpenMP region, no database
connection exists that a fork could break.

It talks to its one client over a socket of message boundaries (``SOCK_SEQPACKET``), on a descriptor
that the client hands down. Each message is a JSON object:

====================  ==========================================================================
from the client       ``{"build": ID, "request": {…}, "memory_bytes": N | null, "result": PATH}``
                      or ``{"kill": ID}``
to the client         ``{"build": ID, "progress": SHARE}`` (from the child itself) or
                      ``{"build": ID, "exit": CODE}``, CODE as in `subprocess`: -N for signal N
====================  ==========================================================================

When the client goes away the socket ends, and every build is killed. The children's pids are
watched through pidfds, so that nothing is ever reaped twice and no signal handler is needed.
"""

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from indexrelay.rebuilder.building import build_component
from indexrelay.rebuilder.limits import be_nice, die_with_parent, limit_memory
from indexrelay.rebuilder.requests import MESSAGE_BYTES, BuildRequest
from indexrelay.schemas.clock import SystemClock
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog


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
        raw = self._channel.recv(MESSAGE_BYTES)
        if not raw:
            return False
        message = json.loads(raw)
        if "kill" in message:
            pid = self._pids.get(message["kill"])
            if pid is not None:  # not reaped yet, so the number is still this child's
                os.killpg(pid, signal.SIGKILL)
        else:
            self._fork(message)
        return True

    def _fork(self, message: dict[str, Any]) -> None:
        pid = os.fork()
        if pid == 0:
            self._selector.close()
            _run_child(self._channel, message)
        # Both sides do this, so that a kill cannot come before it is done.
        with suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)
        self._pids[message["build"]] = pid
        self._selector.register(os.pidfd_open(pid), selectors.EVENT_READ, message["build"])

    def _reap(self, *, build: str, pidfd: int) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(self._pids.pop(build), 0)
        code = os.waitstatus_to_exitcode(status)
        with suppress(OSError):  # the client is gone: the next select says so
            self._channel.send(json.dumps({"build": build, "exit": code}).encode())

    def _kill_all(self) -> None:
        for pid in self._pids.values():
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _run_child(channel: socket.socket, message: dict[str, Any]) -> None:
    """Build, write the result beside the work folder, and end without any clean-up of the parent's.

    Never returns: what the parent had on its stack is not this process's to unwind.
    """
    code = 1
    try:
        os.setpgid(0, 0)
        die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the client's to decide on
        be_nice()
        request = BuildRequest.model_validate(message["request"])
        if message["memory_bytes"] is not None:
            limit_memory(message["memory_bytes"])
        _build(channel, message["build"], request, Path(message["result"]))
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _build(channel: socket.socket, build: str, request: BuildRequest, result: Path) -> None:
    def progress(share: float) -> None:
        with suppress(BlockingIOError):  # a progress message that does not fit is not worth a wait
            channel.send(
                json.dumps({"build": build, "progress": share}).encode(), socket.MSG_DONTWAIT
            )

    clock = SystemClock()
    catalog = Catalog.open(request.catalog_url.get_secret_value(), clock=clock)
    try:
        outcome = build_component(
            request,
            catalog=catalog,
            store=ArtifactStore(request.artifacts_dir),
            clock=clock,
            progress=progress,
        )
    finally:
        catalog.close()
    result.write_text(outcome.model_dump_json(), encoding="utf-8")


def main() -> None:
    """Import what builds need, then serve; arguments: the descriptor, then modules to import."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in sys.argv[2:]:
        # A kind that is not installed fails when it is built, with its own words.
        with suppress(ImportError):
            importlib.import_module(module)
    gc.freeze()  # what was imported stays shared: the collector does not touch its pages
    BuildServer(channel).serve()


if __name__ == "__main__":
    main()
