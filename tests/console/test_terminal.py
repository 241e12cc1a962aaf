"""Every command works on any terminal and in any locale, and stdout holds its answer alone."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from indexrelay.console import main as command_line
from indexrelay.console.commands import COMMANDS, load

NOT_CALLED = {"admin", "demo", "up", "operator", "rebuilder", "reader", "service"}
"""Only their help is asked for here: they never end, or write into the folders of the system."""
NAMELESS = "nobodyé✓"
TERMINALS = [("ascii", "20"), ("latin-1", "80"), ("cp1252", "10"), ("utf-8", "200")]
LOUD = """
import ctypes, os, subprocess
from pathlib import Path
from indexrelay.components.kind import Built, Kind, KindParameters
from indexrelay.schemas.versions import Check

def say(where):
    print(f"print in {where}")
    os.write(1, f"write in {where}\\n".encode())
    subprocess.run(["/bin/echo", "child in", where])

say("import")

class Thing:
    def close(self):
        pass

class Loud(Kind[KindParameters, Thing]):
    def build(self, job):
        say("build")
        file = job.workdir / "thing.txt"
        file.write_text("thing")
        return Built(files={"thing.txt": file}, entries=1)

    def verify(self, job, built, files):
        say("verify")
        yield Check(name="there", passed=True)

    def load(self, files):
        say("load")
        return Thing()

    def lacks(self):
        say("lacks")
        return []
"""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


def leaves(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the command line, with the words that lead to it."""
    for name, below in getattr(command, "commands", {}).items():
        yield from leaves(below, *path, name)
    if path:
        yield path, command


CALLABLE = {path: each for name in COMMANDS for path, each in leaves(load(name), name)}


def calls(config: Path) -> Iterator[list[str]]:
    """Each command's help, and each with as little as it takes, for people and as JSON."""
    for path, command in CALLABLE.items():
        yield [*path, "--help"]
        if path[0] in NOT_CALLED:
            continue
        given = [NAMELESS for each in command.params if each.param_type_name == "argument"]
        names = {option for each in command.params for option in each.opts}
        at = ["--config", str(config)] if "--config" in names else []
        yield [*path, *given, *at]
        if "--json" in names:
            yield [*path, *given, *at, "--json"]


def run(arguments: list[str], *, encoding: str, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """One command in this process, on a terminal of this encoding."""
    raw = io.BytesIO(), io.BytesIO()
    with monkeypatch.context() as patched:
        for name, stream in zip(("stdout", "stderr"), raw, strict=True):
            patched.setattr(sys, name, io.TextIOWrapper(stream, encoding=encoding))
        patched.setattr(sys, "argv", ["indexrelay", *arguments])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        sys.stdout.flush()
        sys.stderr.flush()
        structlog.reset_defaults()
        logging.basicConfig(handlers=[logging.NullHandler()], force=True)
        return Answer(
            int(ended.value.code or 0), *(each.getvalue().decode(encoding) for each in raw)
        )


@pytest.mark.parametrize(("encoding", "columns"), TERMINALS)
def test_every_command_answers_on_every_terminal(
    built: Path, tmp_path: Path, encoding: str, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # `keys generate` writes a file
    monkeypatch.setenv("COLUMNS", columns)
    for arguments in calls(built):
        said = run(arguments, encoding=encoding, monkeypatch=monkeypatch)
        assert said.code in (0, 1, 2, 3), (arguments, said)
        assert "Traceback" not in said.err, (arguments, said.err)
        if "--json" in arguments and said.code != 2:
            assert json.loads(said.out) is not None, arguments  # one document and nothing else
        if arguments[-1] == "--help":
            assert said.out, arguments


def test_what_an_encoding_lacks_is_spelled_otherwise(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["check", "--config", str(built)]
    for encoding, mark in (("utf-8", "✓"), ("latin-1", "ok"), ("ascii", "ok")):
        said = run(arguments, encoding=encoding, monkeypatch=monkeypatch)
        assert said.out.startswith(f"{mark} the settings are right"), said


def shell(line: str, *, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """A line of shell, in which ``$IR`` runs the command line."""
    program = f"{sys.executable} -m indexrelay.console.main"
    return subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail; {line}"],
        cwd=cwd,
        env={**os.environ, "IR": program, **environ},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "environ", "code"),
    [
        ("$IR check", {"PYTHONIOENCODING": "latin-1"}, 0),
        ("$IR check", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, 0),
        ("$IR components show nobody >&- 2>&-", {}, 2),
        ("$IR check --json < /dev/null >&-", {"TERM": "dumb", "NO_COLOR": "1"}, 0),
        ("$IR check > /dev/full", {}, 1),
        ("$IR --help | head -c 1 > /dev/null", {}, 1),
        ("$IR check --json | true", {}, 141),
    ],
)
def test_streams_of_every_kind_end_in_no_traceback(
    built: Path, line: str, environ: dict[str, str], code: int
) -> None:
    said = shell(line, cwd=built.parent, **environ)
    allowed = (code, 0) if "|" in line else (code,)  # who reads may be the slower one
    assert said.returncode in allowed, said
    assert "Traceback" not in said.stderr
    assert "Exception ignored" not in said.stderr


def test_stdout_holds_one_json_document_whatever_a_users_code_prints(tmp_path: Path) -> None:
    """While it is imported, checked, built, verified and loaded: in this process and in builds."""
    (tmp_path / "loud.py").write_text(LOUD)
    (tmp_path / "indexrelay.toml").write_text(
        '[collections.tracks]\ndimension = 2\n[components.thing]\nkind = "loud:Loud"\n'
        'from = "tracks"\n'
    )
    (tmp_path / "job.py").write_text(
        "from indexrelay.producers import Producer\n"
        "from indexrelay.schemas.settings_file import load_settings\n"
        "with Producer.open(load_settings()) as producer:\n"
        "    with producer.batch('tracks', batch_id='a') as batch:\n"
        "        batch.upsert(['a'], [[1, 0]])\n"
    )
    checked = shell("$IR check --json", cwd=tmp_path)
    assert json.loads(checked.stdout)["right"], checked
    for words in ("print in import", "write in import", "child in lacks"):
        assert words in checked.stderr
    rebuilt = shell(f"{sys.executable} job.py && $IR rebuild --here --json", cwd=tmp_path)
    assert json.loads(rebuilt.stdout)["result"]["status"] == "SUCCESS", rebuilt
    for words in ("print in build", "write in verify", "child in load"):
        assert words in rebuilt.stderr
