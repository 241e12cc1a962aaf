"""Running every program, one after another."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_every_program_asks_its_question_and_says_its_caveats() -> None:
    for program in BENCHMARKS.glob("*.py"):
        text = program.read_text(encoding="utf-8")
        assert text.startswith('"""'), program.name
        assert "CAVEATS" in text, program.name
        assert f'name="{program.stem}"' in text, program.name


def test_a_program_that_is_not_there_is_a_wrong_call() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "measuring", "--only", "evnets"],
        env={"PYTHONPATH": str(BENCHMARKS), "PATH": ""},
        capture_output=True,
        check=False,
        text=True,
    )
    assert ran.returncode == 2
    assert "there is no evnets" in ran.stderr
