"""Runs every example and compares what it prints with the file beside it.

``NAME.py`` is compared with ``NAME.expected.txt``, and ``run.py`` with ``expected.txt``. A script
without such a file is a mistake: an example that nobody checks is one that stops working.

Usage: ``python -m scripts.run_examples [FOLDER …]``; without a folder, all of ``examples``.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from scripts.expected_output import difference

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
LIMIT_SECONDS = 300


def runnable(folders: Iterable[Path]) -> list[Path]:
    """The scripts among the Python files: those that do something when they are run."""
    return [
        file
        for folder in folders
        for file in sorted(folder.rglob("*.py"))
        if '__name__ == "__main__"' in file.read_text(encoding="utf-8")
    ]


def expectation(script: Path) -> Path:
    """Where the expected output of ``script`` stands."""
    return script.with_name(
        "expected.txt" if script.name == "run.py" else f"{script.stem}.expected.txt"
    )


def problem(script: Path) -> str | None:
    """Run one; say what is wrong with it, or ``None``."""
    expected = expectation(script)
    if not expected.is_file():
        return f"there is no {expected.name} beside it"
    try:
        run = subprocess.run(
            [sys.executable, script.name],
            cwd=script.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"it ran for more than {LIMIT_SECONDS} seconds"
    if run.returncode != 0:
        return f"it ended with {run.returncode}\n{run.stdout[-4000:]}{run.stderr[-4000:]}"
    return difference(expected.read_text(encoding="utf-8"), run.stdout)


def main(arguments: list[str]) -> int:
    """Run them all; the number of those that went wrong is never hidden by a later success."""
    scripts = runnable([Path(argument).resolve() for argument in arguments] or [EXAMPLES])
    if not scripts:
        sys.stdout.write("there is no example to run\n")
        return 1
    wrong = 0
    for script in scripts:
        started = time.monotonic()
        found = problem(script)
        wrong += found is not None
        mark = "✓" if found is None else "✗"
        sys.stdout.write(
            f"{mark} {script.relative_to(EXAMPLES)} ({time.monotonic() - started:.1f} s)\n"
        )
        if found is not None:
            sys.stdout.write(f"{found}\n")
        sys.stdout.flush()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
