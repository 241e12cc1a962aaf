"""Findings as a person reads them: ratios with ✓ and ✗, and below what was measured for them."""

from typing import Any

from rich.console import Console

from indexrelay.console.sheet import Sheet, flowing, number, whole
from measuring.findings import shown

MARKS = {True: "✓", False: "✗", None: " "}


def show(result: dict[str, Any], console: Console) -> None:
    """Print one program's result, which is in the form of its JSON."""
    figures = Sheet("", whole(""), flowing("figure"), number("value"), whole("target"))
    for figure in result["figures"]:
        value, target = shown(figure["value"]), figure["target"] or ""
        figures.add(MARKS[figure["holds"]], figure["name"], value, target)
    measured = Sheet("", flowing("measured"), number("median"), whole("unit"), whole("range"))
    for each in result["measured"]:
        spread = f"{shown(each['low'])} to {shown(each['high'])}"
        measured.add(each["name"], shown(each["median"]), each["unit"], spread)
    quick = " (quick: small sizes, for correctness only)" if result["quick"] else ""
    console.print(f"\n{result['benchmark']}{quick}, in {result['seconds']:g} s")
    console.print(figures)
    for figure in result["figures"]:
        if figure.get("note"):
            console.print(f"  {figure['name']}: {figure['note']}")
    if result["measured"]:
        console.print(measured)
