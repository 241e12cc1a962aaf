"""Counts the processor's instructions, which a noisy machine does not change.

What surrounds a query takes microseconds, and on a machine that is shared these differ by a third
from one minute to the next. valgrind's callgrind runs a program on a processor of its own, and
counts what it executes; a program that ran twice differs by one in a thousand. Instructions are not
time: one that waits for memory counts as much as one that does not. They stand beside the seconds.

The program is a companion that marks what is counted by `mark`, before and after.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

MEASURING: Final = Path(__file__).resolve().parent
_MARK: Final = "getpgid"
"""A function of the C library that nothing else calls, at which callgrind writes its counts."""
_TOTALS: Final = re.compile(r"^totals: (\d+)$", re.MULTILINE)


class CounterMissingError(RuntimeError):
    """Raised when valgrind is not installed; the figure then says so."""

    def __init__(self) -> None:
        super().__init__("valgrind is not installed, so no instructions are counted")


def mark() -> None:
    """Begin or end what is counted; costs nothing outside of valgrind."""
    os.getpgid(0)


def counted(program: str, *arguments: str, parts: int) -> list[int]:
    """Run ``benchmarks/companions/PROGRAM.py`` under callgrind.

    Args:
        program: its name, without the ending.
        arguments: for its command line.
        parts: how many pieces of work it marks.

    Returns:
        the instructions of each piece, in their order.

    Raises:
        CounterMissingError: there is no valgrind.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CounterMissingError
    with tempfile.TemporaryDirectory(prefix="ir-") as folder:
        out = Path(folder) / "counts"
        subprocess.run(
            [
                valgrind,
                "--tool=callgrind",
                f"--callgrind-out-file={out}",
                f"--dump-before={_MARK}",
                sys.executable,
                MEASURING.parent / "companions" / f"{program}.py",
                *arguments,
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(MEASURING.parent), "PYTHONHASHSEED": "0"},
        )
        # Each mark writes what was counted since the last one: outside, inside, outside, inside, …
        return [_total(out.with_name(f"counts.{2 * part + 2}")) for part in range(parts)]


def _total(file: Path) -> int:
    found = _TOTALS.search(file.read_text(encoding="utf-8"))
    if found is None:
        raise RuntimeError(f"{file.name} of callgrind has no total")
    return int(found[1])
