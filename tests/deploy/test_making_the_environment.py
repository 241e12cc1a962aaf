"""The Makefile says what it can do, and what is missing, before it does anything."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.compose import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


def make(*arguments: str) -> "subprocess.CompletedProcess[str]":
    # A make around these tests must not hand its own flags to this one.
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],  # noqa: S607 - make is found on PATH
        cwd=ROOT,
        env=environ,
        capture_output=True,
        check=False,
        text=True,
    )


def program(folder: Path, *, says: str) -> Path:
    """Something that stands in for a Python that will not do."""
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{says}\n")
    file.chmod(0o755)
    return file


def test_make_alone_lists_every_target() -> None:
    listed = make()
    assert listed.returncode == 0
    targets = re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test", "lint", "types", "imports", "docs", "examples", "ci"} <= set(targets)
    assert re.findall(r"^  make (\S+)", listed.stdout, re.MULTILINE) == sorted(targets)


@pytest.mark.parametrize("target", ["demo", "test", "lint", "types", "imports", "check-docs"])
def test_every_target_makes_the_environment_first(target: str, tmp_path: Path) -> None:
    planned = make("--dry-run", f"VENV={tmp_path}/venv", target)
    assert planned.returncode == 0
    assert "-m venv" in planned.stdout


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused = make("PYTHON=no-such-python", f"VENV={tmp_path}/venv", "lint")
    assert refused.returncode != 0
    assert "There is no 'no-such-python' here" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_a_python_that_is_too_old_is_refused(tmp_path: Path) -> None:
    old = program(tmp_path, says='[ "$1" = --version ] && echo Python 3.9.2; exit 1')
    refused = make(f"PYTHON={old}", f"VENV={tmp_path}/venv", "lint")
    assert refused.returncode != 0
    assert "Python 3.11 or newer is needed" in refused.stderr
    assert "Python 3.9.2" in refused.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_without_venv_says_what_to_install(tmp_path: Path) -> None:
    bare = program(tmp_path, says='case "$2" in *ensurepip*) exit 1;; esac')
    refused = make(f"PYTHON={bare}", f"VENV={tmp_path}/venv", "lint")
    assert refused.returncode != 0
    assert "apt-get install python3-venv" in refused.stderr
