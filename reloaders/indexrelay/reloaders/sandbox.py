"""Tries in a process of its own what must not be trusted in this one.

FAISS reads a file as if it had written it. What is in the file decides how much memory it asks for,
how long it loops, and, in rare cases, where it writes: a crafted file ended every reader that a
release brought it to, or held it for ever. A digest says only that the file is the one that was
meant. So whatever a kind calls `sandboxed` is loaded by a child first, under a limit of time and of
memory; if that ends well the reader loads it itself. Files are immutable, and the store remembers
for each host which ones were opened (`ArtifactStore.was_opened`), the builder's gates among them.
So a reader hardly ever meets one that is new to its host, and the usual reload pays nothing.

Starting Python and FAISS takes half a second, so the children are forked from a process that has
both (`indexrelay.reloaders.sandbox_server`). It starts when it is first needed, and ends by itself
when nobody has needed it for a while.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.kind import Kind
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.versions import VersionManifest

log = get_logger(__name__)

SECONDS: Final = 20.0
"""How long it may take to load and inspect a version …"""
BYTES_PER_SECOND: Final = 20_000_000
"""… and this much longer for what is in its files: a slow network file system reads so fast."""
MEMORY_BYTES: Final = 1 << 30
"""How much private memory that may take beside …"""
MEMORY_FACTOR: Final = 4
"""… so many times what the files hold: not all that FAISS reads can be mapped."""
_FROM_OUTSIDE: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_SERVER: Final = "indexrelay.reloaders.sandbox_server"


class Sandbox:
    """The sandbox of one process; safe to use from any thread, one at a time gets its turn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        os.register_at_fork(after_in_child=self._forget)

    def try_out(
        self,
        kind: Kind[Any, Any],
        manifest: VersionManifest,
        files: Mapping[str, Path],
        labels: Collection[str],
    ) -> None:
        """Load a version in a child, and let its kind inspect it.

        Args:
            files: all of the version.
            labels: those of them that nobody has opened yet, for the words of an error.

        Raises:
            DamagedFileError: one is damaged, or opening it crashes, does not end, or takes far more
                memory than is in it.
            MemoryError, OSError: that could not be found out now.
        """
        size = sum(path.stat().st_size for path in files.values())
        request = {
            "kind": manifest.kind,
            "parameters": manifest.parameters,
            "preload": list(kind.preload),
            "path": sys.path,
            "files": {label: str(path) for label, path in files.items()},
            "seconds": SECONDS + size / BYTES_PER_SECOND,
            "memory_bytes": MEMORY_BYTES + MEMORY_FACTOR * size,
        }
        answer = self._ask(json.dumps(request).encode())
        log.debug("version.tried_out", component=manifest.component, answer=answer)
        suspect = files[min(labels)]
        if "damaged" in answer:
            raise DamagedFileError(Path(answer["file"]), str(answer["damaged"]))
        if "memory" in answer:
            allowed = request["memory_bytes"]
            raise DamagedFileError(suspect, f"opening it takes more than {allowed} bytes of memory")
        if "errno" in answer:
            number = int(answer["errno"])
            raise OSError(number, os.strerror(number), str(suspect))
        if "signal" in answer:
            raise _of_signal(int(answer["signal"]), suspect, SECONDS + size / BYTES_PER_SECOND)
        # Whatever else it raised it raises here as well, and ends nobody by it.

    def close(self) -> None:
        """End the server; the next `try_out` starts another one."""
        with self._lock:
            self._end()

    def _ask(self, request: bytes) -> dict[str, Any]:
        with self._lock:
            for attempt in ("idle", "fresh"):
                process = self._server()
                with contextlib.suppress(BrokenPipeError):
                    assert process.stdin is not None  # noqa: S101 - for the type checker
                    process.stdin.write(request + b"\n")
                    process.stdin.flush()
                assert process.stdout is not None  # noqa: S101 - as above
                line = process.stdout.readline()
                if line:
                    answer: dict[str, Any] = json.loads(line)
                    return answer
                self._end()  # it had just gone for want of work
                log.debug("sandbox.gone", attempt=attempt)
        raise MemoryError("the process in which files are tried out ended before it answered")

    def _server(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        process.kill()
        process.wait()

    def _forget(self) -> None:
        """In a forked child: the server and its pipes are the parent's."""
        self._lock = threading.Lock()
        process, self._process = self._process, None
        self._owner = os.getpid()
        if process is not None:
            process.returncode = 0  # not ours to wait for
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


def _of_signal(number: int, path: Path, seconds: float) -> Exception:
    """What a signal that ended the child says of the file."""
    if number == signal.SIGALRM:
        return DamagedFileError(path, f"opening it does not end within {seconds:.0f} s")
    if number in _FROM_OUTSIDE:
        return MemoryError(f"somebody killed the process in which {path.name} was tried out")
    return DamagedFileError(path, f"opening it crashes ({signal.Signals(number).name})")


SANDBOX: Final = Sandbox()
"""That of this process: nothing is started before it is needed."""
atexit.register(SANDBOX.close)
