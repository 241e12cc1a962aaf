"""Forks the children of the sandbox: ``python -m indexrelay.reloaders.sandbox_server``.

It reads one request a line from standard input, a JSON object (see `Sandbox.open_first`), forks a
child that loads the version and ends, and writes the result as one line: ``{}``,
``{"corrupt": REASON, "file": PATH}``, ``{"memory": true}``, ``{"errno": NUMBER}``,
``{"error": WORDS}`` or ``{"signal": NUMBER}``. It ends at the end of its input, or when no request
has come for a while.

The child's time is limited by the kernel's alarm, which ends it also in the middle of FAISS.
"""

import gc
import importlib
import json
import os
import resource
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.registry import kind_class
from indexrelay.components.served import VersionFiles

IDLE_SECONDS: Final = 60.0
_OPENBLAS_BYTES: Final = 128 * 1024 * 1024
"""Its buffer, which it maps for itself and hardly touches."""


def main() -> None:
    """Serve until the end of the input, or until idle for `IDLE_SECONDS`."""
    # Whatever a library prints must not get between the answers.
    answers = os.dup(1)
    os.dup2(2, 1)
    while True:
        ready, _, _ = select.select([0], [], [], IDLE_SECONDS)
        line = _read_line() if ready else b""
        if not line:
            return
        request = json.loads(line)
        for module in request["preload"]:
            with suppress(Exception, SystemExit):  # the child says what is missing
                importlib.import_module(module)
        if ":" not in request["kind"]:  # users' code runs in the child only
            with suppress(Exception, SystemExit):
                kind_class(request["kind"])
        gc.freeze()  # what was imported stays shared: the collector does not touch its pages
        answer = _answer(request)
        os.write(answers, json.dumps(answer).encode() + b"\n")


def _read_line() -> bytes:
    """Up to the end of a line, unbuffered: `select` must see what is left."""
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(0, 1 << 16)
        if not piece:
            return b""
        line += piece
    return bytes(line)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    result, write_to = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(result)
        _run_child(request, write_to)
    os.close(write_to)
    with os.fdopen(result, "rb") as stream:
        words = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status < 0:
        return {"signal": -status}
    answer: dict[str, Any] = json.loads(words) if words else {"error": f"it ended with {status}"}
    return answer


def _run_child(request: dict[str, Any], write_to: int) -> None:
    """Load and inspect, write the result, and end; never returns."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what a library says as it crashes
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        _limit_memory(request["memory_bytes"])
        os.write(write_to, json.dumps(_loaded(request)).encode())
    finally:
        os._exit(0)


def _loaded(request: dict[str, Any]) -> dict[str, Any]:
    sys.path[:] = request["path"]
    try:
        made = kind_class(request["kind"])
        kind = made(made.Parameters.model_validate(request["parameters"]))
        files = {label: Path(path) for label, path in request["files"].items()}
        value = kind.load(VersionFiles(files))
        kind.inspect(value)
    except CorruptFileError as error:
        return {"corrupt": error.reason, "file": str(error.path)}
    except MemoryError:
        return {"memory": True}
    except OSError as error:
        return {"errno": error.errno} if error.errno else {"error": str(error)}
    except BaseException as error:  # noqa: BLE001 - it goes into the answer
        return {"error": f"{type(error).__name__}: {error}"[:1000]}
    return {}


def _limit_memory(more_bytes: int) -> None:
    """Allow so much more private memory than there is now; mapped files do not count."""
    now = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        if line.startswith("VmData:")
    )
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = now + more_bytes + _OPENBLAS_BYTES
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


if __name__ == "__main__":
    main()
