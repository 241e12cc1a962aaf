"""Tries every reported input again: what was tried, what is wanted, and what comes of it.

The rows are in ``scripts/reports``, a module for each section; each module that has a tuple
``REPORTS`` is found there by itself. Ends with 1 if any verdict is not what is wanted. All of it
takes about 20 seconds; what comes to nothing within a minute is wrong, and the next one is tried.

Usage: ``python -m scripts.try_reports [--only B7,D] [--json]``.
"""
# ruff: noqa: INP001 - a script: nothing is installed from this folder

import argparse
import importlib
import json
import logging
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from scripts.reports.report import Report, Verdict, try_report

_FILE_COLUMNS = 160
"""Of the table where no terminal says how wide it is."""
FOLDER = Path(__file__).resolve().parent / "reports"


def all_reports() -> list[Report]:
    """Every row of every section, in the order of the items."""
    found: list[Report] = []
    for file in sorted(FOLDER.glob("*.py")):
        module = importlib.import_module(f"scripts.reports.{file.stem}")
        found += getattr(module, "REPORTS", ())
    return sorted(found, key=lambda report: _place(report.item))


def chosen(reports: Iterable[Report], only: Sequence[str]) -> list[Report]:
    """Those whose item is named, or whose section is."""
    return [
        report
        for report in reports
        if not only or report.item in only or report.item.rstrip("0123456789") in only
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Try them all, and print the table or the JSON document."""
    asked = _arguments(arguments)
    logging.disable(logging.CRITICAL)  # the table is what somebody wants to see
    verdicts = [try_report(report) for report in chosen(all_reports(), asked.only)]
    if asked.json:
        sys.stdout.write(json.dumps([each.as_json() for each in verdicts], indent=2) + "\n")
    else:
        _print_table(verdicts)
    if not verdicts:
        sys.stderr.write(f"there is no report {', '.join(asked.only)}\n")
    return 0 if verdicts and all(verdict.right for verdict in verdicts) else 1


def _print_table(verdicts: Sequence[Verdict]) -> None:
    wrong = sum(not verdict.right for verdict in verdicts)
    seconds = sum(verdict.seconds for verdict in verdicts)
    total = f"{len(verdicts)} reports, {wrong} not as wanted, in {seconds:.0f} s"
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        for verdict in verdicts:
            mark = "✓" if verdict.right else "✗"
            line = f"{mark} {verdict.report.item}  {verdict.report.tried}: {verdict.found}\n"
            sys.stdout.write(
                line if verdict.right else f"{line}  wanted: {verdict.report.wanted}\n"
            )
        sys.stdout.write(f"{total}\n")
        return
    table = Table(
        "", "item", "tried", "verdict", title="Reports, tried again", title_justify="left"
    )
    for verdict in verdicts:
        found = verdict.found
        if not verdict.right:
            found = f"{found}\nwanted: {verdict.report.wanted}"
        mark = "✓" if verdict.right else "✗"
        table.add_row(mark, verdict.report.item, verdict.report.tried, found)
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _FILE_COLUMNS
    console.print(table)
    console.print(total)


def _place(item: str) -> tuple[str, int]:
    """Section, then number: B7 comes before B12."""
    found = re.fullmatch(r"([A-Z]+)(\d*)", item)
    if found is None:
        raise ValueError(f"an item is a section and a number, as B7, not {item!r}")
    return found[1], int(found[2] or 0)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.try_reports", description=__doc__)
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=[],
        metavar="ITEMS",
        help="items or whole sections, with commas: B7,D",
    )
    parser.add_argument("--json", action="store_true", help="a JSON list instead of the table")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
