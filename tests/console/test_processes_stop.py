"""Signals stop a command in order, and children do not outlive it. On real processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from indexrelay.console.errors import ExitCode
from indexrelay.console.processes import Child, Stop

WAITING = """
import sys
from indexrelay.console.processes import Stop
with Stop(interrupt=sys.argv[1] == "interrupt") as stop:
    try:
        print("ready", flush=True)
        while not stop.wait(60):
            pass
        print("asked", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
sys.exit(stop.exit_code if sys.argv[2] == "work" else stop.role_exit_code)
"""


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("number", "how", "what", "said", "code"),
    [
        (signal.SIGINT, "wait", "work", "asked", ExitCode.INTERRUPTED),
        (signal.SIGTERM, "wait", "work", "asked", ExitCode.TERMINATED),
        (signal.SIGTERM, "wait", "role", "asked", ExitCode.SUCCESS),
        (signal.SIGINT, "interrupt", "work", "interrupted", ExitCode.INTERRUPTED),
        (signal.SIGTERM, "interrupt", "work", "interrupted", ExitCode.TERMINATED),
    ],
)
def test_a_signal_wakes_at_once_and_decides_the_exit_code(
    number: int, how: str, what: str, said: str, code: ExitCode
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, how, what], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.read() == f"{said}\n"
        assert process.wait(20) == code


def test_later_signals_do_not_interrupt_the_cleanup() -> None:
    with Stop(interrupt=True) as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.exit_code == ExitCode.TERMINATED


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Stop():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    """A child that runs a small program instead of one of our commands."""
    made = Child("sleeper", [], environ=os.environ, log=tmp_path / "logs" / "sleeper.log")
    program = "import time; print('up', flush=True); time.sleep(600)"
    monkeypatch.setattr(made, "_command", [sys.executable, "-c", program])
    return made


def test_a_child_is_stopped_and_the_end_of_its_log_is_kept(child: Child) -> None:
    child.start()
    assert eventually(lambda: child.tail() == "up")
    pid = child.pid
    assert pid is not None
    child.stop(grace_seconds=10)
    assert not alive(pid)
    assert child.exit_code == -signal.SIGTERM
    child.stop(grace_seconds=10)


def test_a_child_that_ignores_sigterm_is_killed(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); "
        "print('up', flush=True); time.sleep(600)"
    )
    monkeypatch.setattr(child, "_command", [sys.executable, "-c", deaf])
    child.start()
    assert eventually(lambda: child.tail() == "up")
    child.stop(grace_seconds=0.1)
    assert child.exit_code == -signal.SIGKILL


def test_stopping_before_starting_is_nothing(child: Child) -> None:
    child.stop(grace_seconds=1)
    assert child.exit_code is None


def test_a_child_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = f"""
import os, pathlib, sys, time
from indexrelay.console.processes import Child
child = Child("sleeper", [], environ=os.environ, log=pathlib.Path({str(tmp_path / "log")!r}))
child._command = [sys.executable, "-c", "print('up', flush=True); import time; time.sleep(600)"]
child.start()
while child.tail() != "up":
    time.sleep(0.01)
print(child.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert alive(pid)
        process.kill()
        assert eventually(lambda: not alive(pid))
