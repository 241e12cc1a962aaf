"""SIGHUP: noted from the first moment, and an end only where a terminal goes that was to end it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from indexrelay.console.errors import ExitCode
from indexrelay.console.hangup import noting_hangup
from indexrelay.streams import parent_death
from tests.fixtures.warm_process import WarmProcess

IN_A_TERMINAL = """
import os, signal, sys
from indexrelay.console.hangup import noting_hangup
from indexrelay.console.processes import Stop
os.open(sys.argv[1], os.O_RDWR)  # the first one that a session opens is its terminal
signal.signal(signal.SIGHUP, signal.Handlers[sys.argv[2]])
with Stop() as stop, noting_hangup() as came:
    print("ready", flush=True)
    while not (stop.wait(0.02) or came.is_set()):
        pass
    print("ends" if stop.asked else "goes on")
"""


@pytest.mark.parametrize(("before", "after"), [("SIG_DFL", "ends"), ("SIG_IGN", "goes on")])
def test_a_terminal_that_goes_ends_a_role_unless_nohup_started_it(before: str, after: str) -> None:
    terminal, theirs = os.openpty()
    command = [sys.executable, "-c", IN_A_TERMINAL, os.ttyname(theirs), before]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, start_new_session=True, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.close(theirs)
        os.close(terminal)
        assert process.communicate(timeout=30)[0] == f"{after}\n"


def test_what_came_before_a_role_asks_counts() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with noting_hangup() as came:
        os.kill(os.getpid(), signal.SIGHUP)
        with noting_hangup() as asked:
            assert asked.is_set()
            asked.clear()
            os.kill(os.getpid(), signal.SIGHUP)
        assert came.is_set()
    assert signal.getsignal(signal.SIGHUP) is before


@pytest.mark.parametrize("role", ["rebuilder", "reader --id a --port 1", "operator", "admin", "up"])
def test_one_that_comes_while_a_role_reads_its_settings_does_not_end_it(
    role: str, tmp_path: Path
) -> None:
    (tmp_path / "hangs_up.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\n"
    )
    config = tmp_path / "indexrelay.toml"
    config.write_text(
        "[collections.a]\ndimension = 3\n[components.c]\nkind = 'hangs_up:Kind'\nfrom = 'a'\n"
    )
    log = tmp_path / "log"
    with log.open("wb") as said:
        process = WarmProcess(
            ["indexrelay.console.main", *role.split(), "--config", str(config)],
            log=said,
            cwd=tmp_path,
        )
        assert process.wait(30) == ExitCode.USAGE, log.read_text()
    assert "has no 'Kind'" in log.read_text()


def test_a_child_of_ours_is_not_ended_before_it_takes_it() -> None:
    asks = "import signal; print(signal.getsignal(signal.SIGHUP).name)"
    command = [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid())]
    done = subprocess.run(
        [*command, sys.executable, "-c", asks], capture_output=True, check=True, timeout=30
    )
    assert done.stdout == b"SIG_IGN\n"
