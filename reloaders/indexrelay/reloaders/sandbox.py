"""Opens files in a child process first, where they may do harm to the process that opens them.

FAISS trusts what is in a file. It decides how much memory FAISS asks for, how long it loops, and in
rare cases where it writes: a crafted file ended every reader that loaded it, or held it for ever. A
digest only shows that the file is the one that the release names. So the files that a kind calls
`sandboxed` are opened by a child first, under limits of time and memory; when that succeeds the
reader opens them itself. Files are immutable, and the store remembers for each host which ones were
opened (`ArtifactStore.was_opened`), by a builder's gates, too. So a reader hardly ever meets one
that is new to its host, and the usual reload starts no child.

Starting Python and FAISS takes half a second, so the children are forked from a process that has
both (`indexrelay.reloaders.sandbox_server`). It starts when it is first needed, and ends by itself
when it has been idle for a while.
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

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.kind import Kind
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.versions import VersionManifest

log = get_logger(__name__)

SECONDS: Final = 20.0
"""How long a child may take to load and inspect a version …"""
BYTES_PER_SECOND: Final = 20_000_000
"""… and longer for large files: a slow network file system reads this fast."""
MEMORY_BYTES: Final = 1 << 30
"""How much private memory a child may take …"""
MEMORY_FACTOR: Final = 4
"""… beside so many times the size of the files: not all that FAISS reads can be mapped."""
_FROM_OUTSIDE: Final = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_SERVER: Final = "indexrelay.reloaders.sandbox_server"


class Sandbox:
    """The sandbox of one process; safe to use from any thread, one version at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        os.register_at_fork(after_in_child=self._forget)

    def open_first(
        self,
        kind: Kind[Any, Any],
        manifest: VersionManifest,
        files: Mapping[str, Path],
        labels: Collection[str],
    ) -> None:
        """Load a version in a child, and let its kind inspect it.

        Args:
            files: all of the version.
            labels: those of them that were not opened on this host yet, for an error's sentence.

        Raises:
            CorruptFileError: one is corrupt, or opening it crashes, does not end, or takes far more
                memory than is in it.
            MemoryError, OSError: it failed for a reason that is not in the files.
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
        log.debug("version.opened_in_sandbox", component=manifest.component, answer=answer)
        suspect = files[min(labels)]
        if "corrupt" in answer:
            raise CorruptFileError(Path(answer["file"]), str(answer["corrupt"]))
        if "memory" in answer:
            allowed = request["memory_bytes"]
            raise CorruptFileError(suspect, f"opening it takes more than {allowed} bytes of memory")
        if "errno" in answer:
            number = int(answer["errno"])
            raise OSError(number, os.strerror(number), str(suspect))
        if "signal" in answer:
            raise _of_signal(int(answer["signal"]), suspect, SECONDS + size / BYTES_PER_SECOND)
        # Any other error is raised again when the reader itself loads the version.

    def close(self) -> None:
        """End the server; the next `open_first` starts another one."""
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
                self._end()  # it had just ended, since it was idle
                log.debug("sandbox.gone", attempt=attempt)
        raise MemoryError("the sandbox ended before it answered")

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
    """The error for a signal that ended the child."""
    if number == signal.SIGALRM:
        return CorruptFileError(path, f"opening it does not end within {seconds:.0f} s")
    if number in _FROM_OUTSIDE:
        return MemoryError(f"the sandbox was killed from outside while it opened {path.name}")
    return CorruptFileError(path, f"opening it crashes ({signal.Signals(number).name})")


SANDBOX: Final = Sandbox()
"""The one of this process; it starts nothing before it is needed."""
atexit.register(SANDBOX.close)
