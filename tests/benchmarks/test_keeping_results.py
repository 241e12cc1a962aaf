"""The page of results and its plots."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from measuring import results
from measuring.findings import Figure, Findings, Measured, at_least
from measuring.plots import PLOTS, Bars, Line, Lines, draw
from measuring.program import Asked, Program, run

GROWTH = Lines(
    name="growth",
    title="What 1,000 changes cost",
    x="entries",
    y="s",
    lines=(Line(label="ours", points=((1e5, 0.1), (1e6, 0.12))),),
    log_x=True,
)
RATES = Bars(name="rates", title="Events", unit="events/s", bars=(("one by one", 9000.0),))


def result(name: str = "events", value: float = 0.9) -> dict[str, Any]:
    findings = Findings(
        figures=(
            Figure(name="ours ÷ bare", value=value, target=at_least(0.8)),
            Figure(name="ours ÷ peer", value=None, target=at_least(1), note="not installed"),
        ),
        measured=(Measured(name="ours", unit="events/s", values=(9000.0, 9500.0)),),
        plots=(RATES,),
        servers={"valkey": "9.1.2"},
    )
    program = Program(
        name=name,
        question="How fast?\n\nMore.",
        caveats="- One machine.",
        measure=lambda _: findings,
    )
    return run(program, Asked(quick=False, say=lambda _: None))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(results, "PLOTS_FOLDER", tmp_path / "plots")
    monkeypatch.setattr(results, "PAGE", tmp_path / "RESULTS.md")
    return tmp_path


def test_what_is_missed_stands_first(folder: Path) -> None:
    results.keep(result())
    results.keep(result("reading", value=0.75))
    head, _, _ = results.write_page().read_text(encoding="utf-8").partition("\n## ")
    assert "**1 of 2 targets are met.** Missed:" in head
    assert "- [reading](#reading): ours ÷ bare is 0.75, the target ≥ 0.8" in head


def test_the_page_has_figures_machine_caveats_and_plots(folder: Path) -> None:
    results.keep(result())
    page = results.write_page().read_text(encoding="utf-8")
    assert "**1 of 1 targets are met.**" in page
    assert "| ✓ | ours ÷ bare | 0.9 | ≥ 0.8 |" in page
    assert "|  | ours ÷ peer (not installed) | - | ≥ 1 |" in page
    assert "| ours | 9,250 | events/s | 9,000 to 9,500 | 2 |" in page
    assert "![Events](plots/rates.svg)" in page
    assert "valkey 9.1.2" in page
    assert "- One machine." in page
    assert (folder / "plots" / "rates.svg").is_file()


def test_running_one_program_again_leaves_the_others_results(folder: Path) -> None:
    results.keep(result("entries"))
    results.keep(result("events"))
    results.keep(result("events"))
    assert [kept["benchmark"] for kept in results.kept()] == ["entries", "events"]


@pytest.mark.parametrize("plot", [GROWTH, RATES], ids=["lines", "bars"])
def test_a_plot_is_svg_whose_text_is_text_and_the_same_each_time(
    plot: Bars | Lines, tmp_path: Path
) -> None:
    first = draw(plot, tmp_path).read_bytes()
    assert draw(plot, tmp_path).read_bytes() == first
    root = ET.fromstring(first)  # noqa: S314 - we wrote it
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert plot.title in texts


def test_a_plot_survives_being_kept_as_json() -> None:
    told = json.dumps(PLOTS.dump_python((GROWTH, RATES), mode="json"))
    assert PLOTS.validate_python(json.loads(told)) == (GROWTH, RATES)


def test_the_page_in_the_repository_is_what_the_kept_results_give() -> None:
    if not results.PAGE.exists():
        pytest.skip("nothing was measured yet")
    assert results.PAGE.read_text(encoding="utf-8") == results.page(results.kept())
    plots = {plot["name"] for result in results.kept() for plot in result["plots"]}
    assert {file.stem for file in results.PLOTS_FOLDER.glob("*.svg")} == plots
