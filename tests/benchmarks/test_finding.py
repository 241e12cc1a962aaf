"""Figures and their targets, and the object that a program prints."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from measuring.findings import Figure, Findings, Measured, at_least, at_most, joined, shown
from measuring.plots import Bars

ASKING = '''
"""How long is nothing? For the test."""
import sys
from measuring.findings import Figure, Findings, at_most
from measuring.program import Asked, Program, main
from measuring.rounds import interleaved, timed

def measure(asked):
    work = timed(lambda: sum(range(1000)))
    found = interleaved({"ours": work, "bare": work}, rounds=asked.rounds, say=asked.say)
    figures = (
        Figure(name="ours ÷ bare", value=found.ratio("ours", "bare"), target=at_most(1e9)),
        Figure(name="ours ÷ nobody", value=None, target=at_most(1), note="nobody is installed"),
    )
    return Findings(figures=figures, measured=(found.rates("ours", 1, "sums/s"),))

PROGRAM = Program(name="nothing", question=__doc__, caveats="- None.", measure=measure)
sys.exit(main(PROGRAM))
'''


def test_a_target_is_met_from_its_side() -> None:
    assert at_least(0.8).met_by(0.8)
    assert not at_least(0.8).met_by(0.79)
    assert at_most(1.1).met_by(1.1)
    assert not at_most(1.1).met_by(1.11)


def test_a_figure_tells_name_value_target_and_whether_it_holds() -> None:
    figure = Figure(name="reload ÷ read_index", value=0.0123456, target=at_most(0.05))
    assert figure.as_json() == {
        "name": "reload ÷ read_index",
        "value": 0.01235,
        "target": "≤ 0.05",
        "holds": True,
    }


def test_a_figure_without_a_target_holds_neither_nor() -> None:
    assert Figure(name="p99.9", value=3.0).as_json()["holds"] is None


def test_a_figure_without_a_value_says_why() -> None:
    missing = Figure(name="ours ÷ autofaiss", value=None, target=at_most(0.3), note="not installed")
    assert missing.as_json()["holds"] is None
    assert missing.as_json()["note"] == "not installed"
    with pytest.raises(ValueError, match="must say why"):
        Figure(name="ours ÷ autofaiss", value=None)


def test_no_figure_is_infinite() -> None:
    with pytest.raises(ValueError, match="no measurement"):
        Figure(name="ours ÷ nothing", value=math.inf)


def test_the_parts_of_a_program_are_told_together() -> None:
    one = Findings(figures=(Figure(name="a", value=1.0),), servers={"valkey": "9"})
    two = Findings(
        figures=(Figure(name="b", value=2.0),),
        measured=(Measured(name="b", unit="s", values=(1.0,)),),
        plots=(Bars(name="b", title="b", unit="s", bars=(("b", 1.0),)),),
    )
    together = joined([one, two])
    assert [figure.name for figure in together.figures] == ["a", "b"]
    assert (together.measured, together.plots) == (two.measured, two.plots)
    assert together.servers == {"valkey": "9"}


def test_values_are_shown_as_people_write_them() -> None:
    assert [shown(value) for value in (None, 0.05, 12.5, 140_123.4)] == [
        "-",
        "0.05",
        "12.5",
        "140,123",
    ]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "nothing.py"
    file.write_text(ASKING.lstrip(), encoding="utf-8")
    return file


def run(program: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    return subprocess.run(
        [sys.executable, program, *arguments],
        env={"PYTHONPATH": str(benchmarks), "PATH": "", "PYTHONUTF8": "1"},
        capture_output=True,
        check=False,
        text=True,
    )


def test_a_program_prints_one_json_object_and_nothing_else_on_stdout(program: Path) -> None:
    ran = run(program, "--quick", "--json")
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["benchmark"] == "nothing"
    assert result["quick"] is True
    assert [figure["holds"] for figure in result["figures"]] == [True, None]
    assert all(
        {"name", "value", "target", "holds"} <= figure.keys() for figure in result["figures"]
    )
    assert {"cpu", "cores", "memory_gib", "python", "libraries"} <= result["machine"].keys()
    assert "round 5 of 5" in ran.stderr


def test_nothing_in_a_result_names_the_machine(program: Path, tmp_path: Path) -> None:
    told = run(program, "--json").stdout
    for private in (
        str(tmp_path),
        Path.home().as_posix(),
        Path("/etc/hostname").read_text().strip(),
    ):
        assert private not in told


def test_a_person_gets_tables_with_marks(program: Path) -> None:
    ran = run(program)
    assert "✓  ours ÷ bare" in ran.stdout
    assert "ours ÷ nobody: nobody is installed" in ran.stdout


def test_fewer_than_five_rounds_are_a_wrong_call(program: Path) -> None:
    ran = run(program, "--rounds", "3")
    assert ran.returncode == 2
    assert "at least 5" in ran.stderr
