"""Running every program, one after another."""

import subprocess
import sys
from pathlib import Path

import pytest

from measuring import __main__ as running
from measuring import results

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


PROGRAM = """
import sys
from measuring.findings import Figure, Findings, at_least
from measuring.program import Program, main

def measure(asked):
    return Findings(figures=(Figure(name="ours", value=VALUE, target=at_least(1)),))

sys.exit(main(Program(name=NAME, question="Does it work?", caveats="", measure=measure)))
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three programs: one that reaches its target, one that misses it, one that fails."""
    for name, value in (("reaches", "1.5"), ("misses", "0.5"), ("breaks", "nothing")):
        text = PROGRAM.replace("VALUE", value).replace("NAME", f'"{name}"')
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(BENCHMARKS))
    monkeypatch.setattr(running, "BENCHMARKS", tmp_path)
    monkeypatch.setattr(running, "ROOT", tmp_path)
    for place, name in (("RESULTS", "results"), ("PLOTS_FOLDER", "plots"), ("PAGE", "RESULTS.md")):
        monkeypatch.setattr(results, place, tmp_path / name)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["measuring", *arguments])
    return running.main()


def test_a_program_that_fails_fails_the_run_after_the_others_had_their_turn(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch) == 1
    said = capsys.readouterr()
    assert "breaks failed" in said.err
    assert "✗ misses: ours" in said.out
    assert [result["benchmark"] for result in results.kept()] == ["misses", "reaches"]
    assert "| ✓ | ours | 1.5 | ≥ 1 |" in results.PAGE.read_text(encoding="utf-8")


def test_a_missed_target_is_no_failure(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--only", "misses,reaches") == 0


def test_the_quick_form_is_kept_only_when_it_is_asked_for(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--quick", "--only", "reaches") == 0
    assert not results.PAGE.exists()
    assert run(monkeypatch, "--quick", "--keep", "--only", "reaches") == 0
    assert "Quick form" in results.PAGE.read_text(encoding="utf-8")


def test_a_program_that_takes_too_long_is_ended_with_what_it_started(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    endless = "import sys, threading\nprint('begun', file=sys.stderr)\nthreading.Event().wait()\n"
    (programs / "endless.py").write_text(endless, encoding="utf-8")
    monkeypatch.setattr(running, "LIMIT_SECONDS", 0.2)
    assert run(monkeypatch, "--only", "endless") == 1
    assert "endless took more than 0.2 s" in capsys.readouterr().err
