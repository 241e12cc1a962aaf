"""A running server program, kept by a thread of its own.

The kernel sends a parent-death signal when the **thread** that started the child ends, not the
process. So a thread is made for nothing but this: it starts the server and waits for its end. It
lives as long as the server should, and dies only with the process, by whatever means: exit, crash
or SIGKILL.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.private_files import open_private
from indexrelay.schemas.supervised_thread import SupervisedThread
from indexrelay.streams import dying_with_parent

_log = get_logger(__name__)


class Launched:
    """The program ``command``, running; its output goes to the end of ``log_file``.

    It keeps the file descriptor ``held_open``, and so a lock on that, until it ends.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], *, log_file: Path, held_open: int) -> None:
        self._command = [sys.executable, "-I", "-S", dying_with_parent.__file__, str(os.getpid())]
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
        """What it ended with; negative: the signal that ended it; ``None``: it runs."""
        return self._child.returncode

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most so long; says whether it ended."""
        return self._ended.wait(seconds)

    def expect_end(self) -> None:
        """From now on its end is no news."""
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
        except Exception as error:  # noqa: BLE001 - raised where somebody waits for the start
            self._error = error
            self._started.set()
            return
        self._started.set()
        code = self._process.wait()
        self._ended.set()
        if not self._ending:
            _log.error("server.died", exit_code=code, log=str(self._log_file))
