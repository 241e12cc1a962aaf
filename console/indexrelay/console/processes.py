"""Child processes that outlive nothing: each in a group of its own, stopped in a bounded time.

A group of its own keeps the terminal's Ctrl-C from reaching children before their parent has
decided the order in which they stop. Should the parent be killed outright, the kernel sends its
children SIGTERM (``PR_SET_PDEATHSIG``), so that nothing keeps running unseen.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from indexrelay.schemas.private_files import make_private_folder, open_private
from indexrelay.streams import dying_with_parent

_TAIL_BYTES = 2000


class Child:
    """One ``indexrelay`` command in a process of its own.

    `start` must be called on a thread that lives as long as the child is wanted: the kernel
    watches over the thread that made it. `stop` is synchronous, safe twice and safe before `start`.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str],
        log: Path | None,
    ) -> None:
        """Describe it; ``log`` takes what it says, ``None`` leaves that on our own stderr."""
        self.name = name
        # -P: what lies in the current folder is not to stand in for an installed module.
        self._command = [sys.executable, "-P", "-m", "indexrelay.console.main", *arguments]
        self._environ = dict(environ)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; ``None``: it runs, or was never started."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.running:
            return
        with contextlib.ExitStack() as stack:
            output = sys.stderr.fileno()
            if self._log is not None:
                make_private_folder(self._log.parent)
                output = stack.enter_context(open_private(self._log, "ab")).fileno()
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", dying_with_parent.__file__, str(os.getpid())),
                    *self._command,
                ],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )

    def ask_to_stop(self) -> None:
        """Send SIGTERM and return; `stop` then waits for the end."""
        if self._process is not None and self.running:
            self._process.terminate()

    def stop(self, *, grace_seconds: float) -> None:
        """Ask it to end; kill its whole group when it has not after ``grace_seconds``."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            self.ask_to_stop()
            try:
                process.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # A reader has no children; a rebuilder that was killed may have left a build.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    def tail(self) -> str:
        """The end of what it said; empty when that went to stderr."""
        if self._log is None or not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace").strip()
