"""Runs the programs one after another: ``python -m measuring``, which is what ``make bench`` does.

Each runs in a process of its own, so that none inherits another's memory, threads or caches. The
full form keeps what it found and writes ``RESULTS.md``; the quick form shows it, and keeps it only
when asked to. Ends with 1 when a program failed, after the others had their turn.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from indexrelay.console.terminal import stderr, stdout
from measuring.companions import BENCHMARKS, ROOT
from measuring.results import keep, write_page
from measuring.tables import MARKS, show

LIMIT_SECONDS = 1800.0
"""For one program. All of them together stay below 50 minutes on two cores."""


def main() -> int:
    """Run what is asked for."""
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and clear up
    failed: list[str] = []
    missed: list[str] = []
    for program in asked.only:
        result = measured(program, quick=asked.quick)
        if result is None:
            failed.append(program.stem)
            continue
        show(result, stdout())
        missed += [
            f"{program.stem}: {figure['name']}"
            for figure in result["figures"]
            if figure["holds"] is False
        ]
        if asked.keep or not asked.quick:
            keep(result)
            stderr().print(f"written: {write_page().relative_to(ROOT)}")
    for name in missed:
        stdout().print(f"{MARKS[False]} {name}")
    for name in failed:
        stderr().print(f"{name} failed; what it said is above")
    return 1 if failed else 0


def measured(program: Path, *, quick: bool) -> dict[str, Any] | None:
    """Run one program; ``None``: it failed, and said why on stderr."""
    command = [sys.executable, str(program), "--json", *(["--quick"] if quick else [])]
    # A session of its own: when it must be ended, so must what it started.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            out, _ = process.communicate(timeout=LIMIT_SECONDS)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            stderr().print(f"{program.stem} took more than {LIMIT_SECONDS:g} s")
            return None
    if process.returncode != 0:
        return None
    result: dict[str, Any] = json.loads(out)
    return result


def programs() -> dict[str, Path]:
    """Every program, by its name."""
    return {file.stem: file for file in sorted(BENCHMARKS.glob("*.py"))}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m measuring", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is kept")
    parser.add_argument("--keep", action="store_true", help="keep what the quick form found")
    parser.add_argument(
        "--only",
        type=_named,
        default=list(programs().values()),
        help=f"some of {', '.join(programs())}; default: all",
    )
    return parser.parse_args()


def _named(text: str) -> list[Path]:
    known = programs()
    unknown = [name for name in text.split(",") if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}")
    return [known[name] for name in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
