"""Every reported input comes to what is wanted, and the program says so when one does not."""

import json
import threading
from pathlib import Path

import pytest

from scripts import try_reports
from scripts.reports.report import Report, try_report

REPORTS = [each for each in try_reports.all_reports() if not each.starts_processes]


@pytest.mark.parametrize(
    "report", REPORTS, ids=[f"{report.item}-{report.tried}" for report in REPORTS]
)
def test_what_was_reported_comes_to_what_is_wanted(report: Report) -> None:
    verdict = try_report(report)
    assert verdict.right, f"{verdict.found}\nwanted: {report.wanted}"


def test_a_verdict_is_the_value_or_the_error_in_one_line() -> None:
    def fail(folder: Path) -> None:
        raise ValueError(f"two\n  lines, in an empty folder: {not any(folder.iterdir())}")

    raised = Report(item="B1", tried="it", wanted=r"ValueError: two lines", attempt=fail)
    assert try_report(raised).found == "ValueError: two lines, in an empty folder: True"
    assert try_report(raised).right
    taken = Report(item="B1", tried="it", wanted=r"8$", attempt=lambda _: 7)
    assert not try_report(taken).right


def test_a_report_that_comes_to_nothing_in_time_is_wrong_and_holds_up_no_other() -> None:
    never = threading.Event()
    stuck = Report(item="B1", tried="it", wanted="True", attempt=lambda _: never.wait())
    verdict = try_report(stuck, longest_seconds=0.01)
    assert (verdict.found, verdict.right) == ("nothing within 0.01 s", False)
    never.set()


def test_one_wrong_verdict_is_shown_and_ends_the_program_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = [
        Report(item="B10", tried="good", wanted="7$", attempt=lambda _: 7),
        Report(item="B9", tried="bad", wanted="8$", attempt=lambda _: 7),
    ]
    monkeypatch.setattr(try_reports, "all_reports", lambda: reports)
    monkeypatch.setattr("logging.disable", lambda _: None)
    assert try_reports.main(["--json"]) == 1
    assert [each["right"] for each in json.loads(capsys.readouterr().out)] == [True, False]
    assert try_reports.main(["--only", "B10"]) == 0
    assert "1 reports, 0 not as wanted, in 0 s" in capsys.readouterr().out
    assert try_reports.main([]) == 1
    assert "wanted: 8$" in capsys.readouterr().out
    assert try_reports.main(["--only", "C"]) == 1
