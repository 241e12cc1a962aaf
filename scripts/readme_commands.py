"""Runs the README's commands in a copy of the checkout, as a reader of the README would.

A fenced block is run when ``run`` stands behind its language:

- a ``console`` block is a session: each line that begins with ``$ `` is a command (``> `` goes on
  with it), and what stands below is what it prints; nothing below means that it does not matter;
- an ``sh`` block is one script, of which only the exit code matters.

All blocks of a page share one copy, so that what one makes the next may use. The environment comes
first on PATH and is linked into the copy, so that ``make demo`` does not install everything twice.

Usage: ``python -m scripts.readme_commands [PAGE …]``; without a page, ``README.md``.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.expected_output import difference

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS = 600
_BLOCK = re.compile(
    r"^```(?P<language>console|sh) run[ \t]*\n(?P<body>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, kw_only=True)
class Command:
    """One thing to run, and what it is to print (``None``: that does not matter)."""

    text: str
    expected: str | None = None


def commands_of(page: str) -> Iterator[Command]:
    """The commands of all blocks that are to be run, in their order."""
    for block in _BLOCK.finditer(page):
        if block["language"] == "sh":
            yield Command(text=block["body"])
        else:
            yield from _session(block["body"])


def _session(body: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        end = 1
        while end < len(lines) and lines[end].startswith("> "):
            end += 1
        text = "\n".join([lines[0], *(line[2:] for line in lines[1:end])])
        expected = "\n".join(lines[end:])
        yield Command(text=text, expected=expected if expected.strip() else None)


def problem(command: Command, *, folder: Path, environment: dict[str, str]) -> str | None:
    """Run one command in ``folder``; say what is wrong, or ``None``."""
    try:
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command.text],  # noqa: S607 - as a person would
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"it ran for more than {LIMIT_SECONDS} seconds"
    if run.returncode != 0:
        return f"it ended with {run.returncode}\n{run.stdout[-4000:]}{run.stderr[-4000:]}"
    return None if command.expected is None else difference(command.expected, run.stdout)


def _copy(folder: Path) -> None:
    """Lay out what is tracked, or would be, with its times: make must find nothing newer."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],  # noqa: S607 - git is found on PATH
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(Path(sys.prefix), target_is_directory=True)


def main(arguments: list[str]) -> int:
    """Run every page's commands; stop at the first that goes wrong, since others follow from it."""
    for page in [Path(argument).resolve() for argument in arguments] or [ROOT / "README.md"]:
        commands = list(commands_of(page.read_text(encoding="utf-8")))
        if not commands:
            sys.stdout.write(f"{page.name}: no block is marked to be run\n")
            return 1
        with tempfile.TemporaryDirectory(prefix="readme-") as scratch:
            folder = Path(scratch)
            _copy(folder)
            path = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
            environment = {**os.environ, "PATH": path}
            for command in commands:
                found = problem(command, folder=folder, environment=environment)
                mark = "✓" if found is None else "✗"
                sys.stdout.write(f"{mark} {command.text.strip()}\n")
                sys.stdout.flush()
                if found is not None:
                    sys.stdout.write(f"{found}\n")
                    return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
