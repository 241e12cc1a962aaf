"""What is counted and not timed: instructions, and memory."""

import os
import shutil
from pathlib import Path

import pytest

from measuring import instructions
from measuring.instructions import CounterMissingError, counted
from measuring.machine import pss

PROGRAM = """
from measuring.instructions import mark

for times in (1_000, 100_000):
    mark()
    sum(range(times))
    mark()
"""


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind")
def test_instructions_are_counted_between_two_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "companions").mkdir()
    (tmp_path / "companions" / "adding.py").write_text(PROGRAM)
    (tmp_path / "measuring").symlink_to(instructions.MEASURING)
    monkeypatch.setattr(instructions, "MEASURING", tmp_path / "measuring")
    few, many = counted("adding", parts=2)
    assert 50 * few < many < 200 * few


def test_without_valgrind_no_instructions_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(CounterMissingError, match="valgrind is not installed"):
        counted("queries", parts=1)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_memory_of_processes_counts_what_each_has_of_its_own() -> None:
    before = pss([os.getpid()])
    mine = bytearray(os.urandom(1)) * 50_000_000
    assert pss([os.getpid()]) - before > 0.9 * len(mine)
