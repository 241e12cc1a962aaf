"""The processes under test: started, killed, stopped and started again under the same name."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from tests.fixtures.stopped import is_stopped
from tests.fixtures.warm_process import WarmProcess

ROOT = Path(__file__).parents[1]
END_SECONDS = 20.0


def new_interpreter(
    arguments: Sequence[str], log: IO[bytes], environ: Mapping[str, str]
) -> "subprocess.Popen[str]":
    """``python -m ARGUMENTS…``, as a supervisor starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd=ROOT,
        env=environ,
        text=True,
        process_group=0,  # Ctrl-C at the runner is the runner's
    )


def warm_process(
    arguments: Sequence[str], log: IO[bytes], environ: Mapping[str, str]
) -> WarmProcess:
    """The same, without the second that a new interpreter takes to import it all."""
    return WarmProcess(arguments, talks=True, log=log, env=environ, process_group=0)


start_program: Callable[
    [Sequence[str], IO[bytes], Mapping[str, str]], "subprocess.Popen[str] | WarmProcess"
] = new_interpreter
"""How processes are started; the shortened set among the tests starts them warm."""


class Process:
    """One role of the installation; its output is appended to ``log``."""

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[object],
        *,
        log: Path,
        environ: Mapping[str, str],
    ) -> None:
        self.name = name
        self.log = log
        self._arguments = [module, *map(str, arguments)]
        self._environ = {**os.environ, **environ}
        self._process: subprocess.Popen[str] | WarmProcess | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> int | None:
        """How it ended; ``None``: it runs."""
        assert self._process is not None
        return self._process.poll()

    @property
    def stopped(self) -> bool:
        """Whether a SIGSTOP holds it."""
        return is_stopped(self.pid)

    @property
    def descendants(self) -> set[int]:
        """Its children and theirs, as long as they run."""
        found: set[int] = set()
        parents = [self.pid]
        while parents:
            tasks = Path(f"/proc/{parents.pop()}/task")
            children = {
                int(pid)
                for file in tasks.glob("*/children")
                for pid in file.read_text(encoding="ascii").split()
            }
            found |= children
            parents += children
        return found

    def start(self) -> None:
        self.kill()  # what an earlier process left open
        with self.log.open("ab") as log:
            self._process = start_program(self._arguments, log, self._environ)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None
        return self._process.wait(seconds)

    def kill(self) -> None:
        """End it, whatever state it is in; safe twice."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(END_SECONDS)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # a line that it never took
                        pipe.close()

    def ask(self, line: str) -> str:
        """One line in, one line out; empty when it died over it."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()
