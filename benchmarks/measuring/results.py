"""``RESULTS.md``: the page of all results, written from one JSON file for each program.

So one program can be run again without the others, and each says when and on what it ran.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring.companions import BENCHMARKS
from measuring.findings import shown
from measuring.plots import PLOTS, draw
from measuring.tables import MARKS

RESULTS = BENCHMARKS / "results"
PLOTS_FOLDER = BENCHMARKS / "plots"
PAGE = BENCHMARKS / "RESULTS.md"
_HEAD = """\
# Results

What `make bench` measured, written by it from [results](results); do not edit. Ratios are medians
of rounds in which both sides took turns; [README.md](README.md) says how, and what the figures do
not say. ✓: the target is met, ✗: it is missed.
"""


def keep(result: dict[str, Any]) -> None:
    """Keep one program's result, in place of the one before, and draw its plots."""
    RESULTS.mkdir(exist_ok=True)
    PLOTS_FOLDER.mkdir(exist_ok=True)
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    (RESULTS / f"{result['benchmark']}.json").write_text(text, encoding="utf-8")
    for plot in PLOTS.validate_python(result["plots"]):
        draw(plot, PLOTS_FOLDER)


def kept() -> list[dict[str, Any]]:
    """Every result that is kept, by name."""
    files = sorted(RESULTS.glob("*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def page(results: list[dict[str, Any]]) -> str:
    """The whole page."""
    sections = (line for result in results for line in _section(result))
    return "\n".join([_HEAD, *_summary(results), *sections])


def _summary(results: list[dict[str, Any]]) -> Iterator[str]:
    """How many targets are met, and which are not: what a reader wants to know first."""
    judged = [
        (result["benchmark"], figure)
        for result in results
        for figure in result["figures"]
        if figure["holds"] is not None
    ]
    missed = [(name, figure) for name, figure in judged if not figure["holds"]]
    met = len(judged) - len(missed)
    yield f"**{met} of {len(judged)} targets are met.**" + (" Missed:" if missed else "")
    yield ""
    for name, figure in missed:
        yield (
            f"- [{name}](#{name}): {figure['name']} is {shown(figure['value'])}, "
            f"the target {figure['target']}"
        )
    if missed:
        yield ""


def _section(result: dict[str, Any]) -> Iterator[str]:
    yield f"## {result['benchmark']}"
    yield result["question"].splitlines()[0]
    yield ""
    yield "| | figure | value | target |"
    yield "|---|---|---:|---|"
    for figure in result["figures"]:
        note = f" ({figure['note']})" if figure.get("note") else ""
        mark, target = MARKS[figure["holds"]].strip(), figure["target"] or ""
        yield f"| {mark} | {figure['name']}{note} | {shown(figure['value'])} | {target} |"
    yield ""
    if result["measured"]:
        yield "| measured | median | unit | range | rounds |"
        yield "|---|---:|---|---|---:|"
        for each in result["measured"]:
            spread = f"{shown(each['low'])} to {shown(each['high'])}"
            yield (
                f"| {each['name']} | {shown(each['median'])} | {each['unit']} "
                f"| {spread} | {each['rounds']} |"
            )
        yield ""
    for plot in result["plots"]:
        yield f"![{plot['title']}](plots/{plot['name']}.svg)"
        yield ""
    yield from _told(result)


def _told(result: dict[str, Any]) -> Iterator[str]:
    """What it ran on, and its caveats."""
    machine = result["machine"]
    versions = {**machine["libraries"], **machine["servers"]}
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    quick = " Quick form: small sizes." if result["quick"] else ""
    yield (
        f"{result['date']}, {result['seconds']:,.0f} s, load {result['load_before']:g} before."
        f"{quick} {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB, "
        f"{machine['system']}; Python {machine['python']}, {told}."
    )
    yield ""
    if result["caveats"]:
        yield result["caveats"]
        yield ""


def write_page() -> Path:
    """Write the page from what is kept."""
    PAGE.write_text(page(kept()), encoding="utf-8")
    return PAGE
