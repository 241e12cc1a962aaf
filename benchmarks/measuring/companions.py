"""A program that is measured in a process of its own, asked for one round at a time.

What must run in a fresh process, or in another environment, still takes turns with the rest: the
companion starts once, and then answers each question with one line. Both sides speak JSON, one
object to a line, over its standard streams; what it says on stderr passes through.

A companion's program imports only what it measures, `answering` from ``measuring.companion_side``
included: a peer's environment has none of ours.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MEASURING = Path(__file__).resolve().parent
BENCHMARKS = MEASURING.parent
ROOT = BENCHMARKS.parent
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
_STOP_SECONDS = 10.0


class PeerMissingError(RuntimeError):
    """Raised when there is no environment with the peers; ``make bench-peers`` makes it."""

    def __init__(self) -> None:
        super().__init__("the peers are not installed: make bench-peers")


class CompanionFailedError(RuntimeError):
    """Raised when a companion ended instead of answering; what it said is above."""

    def __init__(self, program: Path, code: int | None) -> None:
        super().__init__(f"{program.name} ended with {code} instead of answering")


class Companion:
    """A running companion; made by `companion` and `peer`."""

    def __init__(self, program: Path, process: "subprocess.Popen[str]") -> None:
        self._program = program
        self.process = process

    def ask(self, **question: Any) -> dict[str, Any]:
        """What it answers.

        Raises:
            CompanionFailedError: it ended.
        """
        said, heard = self.process.stdin, self.process.stdout
        if said is None or heard is None:  # never: both are pipes
            raise CompanionFailedError(self._program, None)
        try:
            said.write(json.dumps(question) + "\n")
            said.flush()
            line = heard.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self.process.wait(timeout=_STOP_SECONDS)
            raise CompanionFailedError(self._program, code)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def seconds(self, **question: Any) -> float:
        """How many seconds it says that the answer took."""
        return float(self.ask(**question)["seconds"])


@contextmanager
def companion(
    program: str,
    *arguments: str,
    python: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Companion]:
    """Run ``benchmarks/companions/PROGRAM.py`` for as long as the ``with`` lasts.

    Args:
        program: its name, without the ending.
        arguments: for its command line.
        python: what runs it; ``None``: what runs this.
        variables: of its environment, besides those of this process.
    """
    file = BENCHMARKS / "companions" / f"{program}.py"
    process = subprocess.Popen(
        [python or sys.executable, file, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(variables or {}), "PYTHONPATH": str(MEASURING.parent)},
    )
    try:
        yield Companion(file, process)
    finally:
        if process.stdin is not None:
            process.stdin.close()  # the end of its questions is the end of it
        try:
            process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def peer(program: str, *arguments: str) -> Iterator[Companion]:
    """The same, in the peers' environment.

    Raises:
        PeerMissingError: there is none; the figure then says so.
    """
    if not PEERS_PYTHON.is_file():
        raise PeerMissingError
    with companion(program, *arguments, python=PEERS_PYTHON) as running:
        yield running
